"""Checks deploy/kubernetes and deploy/docker/compose.yaml: python3 tests/deploy/kubernetes.py HAFT GATEWAY_API

GATEWAY_API is the folder with the schemas of the Gateway API, which are not Kubernetes' own.
"""

import copy
import json
import os
import subprocess
import sys

import kubernetes_validate
import yaml

KUBERNETES = "1.37"
HAFT, GATEWAY_API = sys.argv[1:]


def load(path):
    with open(path) as file:
        return list(yaml.safe_load_all(file))


def check(environment):
    """haft must take these variables, and shows each as where its value comes from."""
    environment = {name: value for name, value in environment.items() if name.startswith("HAFT_FLAG_") or name == "PORT"}
    shown = subprocess.run([HAFT, "--check"], env=environment, check=True, capture_output=True, text=True).stdout
    for name in environment:
        assert f"# {name}\n" in shown, (name, shown)


def faults(route):
    """What the Gateway API's schema finds wrong with an HTTPRoute."""
    command = ["node", "tests/deploy/gateway.mjs", GATEWAY_API]
    return subprocess.run(command, input=json.dumps(route), capture_output=True, text=True).stderr.splitlines()


def check_route(route):
    assert faults(route) == [], faults(route)
    rule = route["spec"]["rules"][0]
    assert rule["sessionPersistence"]["type"] == "Cookie", route
    # It is a check that finds something: a wrong value, a field that does not exist, one that is missing.
    for path, value in [("type", "Biscuit"), ("cookieConfig", {"lifetimeType": 7}), ("sessionname", "haft-pod")]:
        wrong = copy.deepcopy(route)
        wrong["spec"]["rules"][0]["sessionPersistence"][path] = value
        assert any(f"/sessionPersistence/{path}" in fault for fault in faults(wrong)), (path, faults(wrong))
    wrong = copy.deepcopy(route)
    del wrong["spec"]["rules"][0]["backendRefs"][0]["name"]
    assert any("/backendRefs/0" in fault and "name" in fault for fault in faults(wrong)), faults(wrong)


def seconds(text):
    assert text.endswith("s"), text
    return int(text[:-1])


folder = "deploy/kubernetes"
base = load(f"{folder}/kustomization.yaml")[0]
files = sorted(name for name in os.listdir(folder) if name != "kustomization.yaml")
# One of the two that a cluster has.
assert sorted(base["resources"] + ["gateway.yaml"]) == files, (base, files)
resources = {}
for name in files:
    for resource in load(f"{folder}/{name}"):
        resources[resource["kind"]] = resource
        if resource["kind"] == "HTTPRoute":
            check_route(resource)
        else:
            kubernetes_validate.validate(resource, KUBERNETES, strict=True)

deployment, service = resources["Deployment"], resources["Service"]
pod = deployment["spec"]["template"]["spec"]
(container,) = pod["containers"]
environment = {variable["name"]: variable["value"] for variable in container["env"]}
check(environment)
pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
assert pod["terminationGracePeriodSeconds"] > pause + seconds(environment["HAFT_FLAG_DRAIN_TIMEOUT"])
ports = {port["name"]: port["containerPort"] for port in container["ports"]}
assert environment["PORT"] == str(ports["web"]) and environment["HAFT_FLAG_ADMIN"].endswith(f":{ports['admin']}")
assert service["spec"]["sessionAffinity"] == "ClientIP" and service["spec"]["ports"][0]["targetPort"] == "web"
labels = deployment["spec"]["template"]["metadata"]["labels"]
assert labels == service["spec"]["selector"] == resources["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]
assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
port_of_service = service["spec"]["ports"][0]["port"]
(target,) = resources["HTTPRoute"]["spec"]["rules"][0]["backendRefs"]
assert target == {"name": service["metadata"]["name"], "port": port_of_service}, target
backend = resources["Ingress"]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
assert backend == {"name": service["metadata"]["name"], "port": {"name": "web"}}

services = load("deploy/docker/compose.yaml")[0]["services"]
app = services["app"]
check(app["environment"])
assert seconds(app["stop_grace_period"]) > seconds(app["environment"]["HAFT_FLAG_DRAIN_TIMEOUT"])
assert app["healthcheck"]["test"] == ["CMD", "/usr/bin/haft", "health"]
subprocess.run([HAFT, "health", "--help"], check=True, capture_output=True)
assert set(services) == {"app", "redis", "proxy"}
