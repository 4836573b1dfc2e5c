"""Checks deploy/kubernetes and deploy/docker/compose.yaml: python3 tests/deploy/kubernetes.py HAFT"""

import os
import subprocess
import sys

import kubernetes_validate
import yaml

KUBERNETES = "1.37"
HAFT = sys.argv[1]


def load(path):
    with open(path) as file:
        return list(yaml.safe_load_all(file))


def check(environment):
    """haft must take these variables, and shows each as where its value comes from."""
    environment = {name: value for name, value in environment.items() if name.startswith("HAFT_FLAG_") or name == "PORT"}
    shown = subprocess.run([HAFT, "--check"], env=environment, check=True, capture_output=True, text=True).stdout
    for name in environment:
        assert f"# {name}\n" in shown, (name, shown)


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
            # Its schema is not Kubernetes' own.
            assert resource["apiVersion"] == "gateway.networking.k8s.io/v1" and resource["spec"]["rules"][0]["sessionPersistence"]
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
backend = resources["Ingress"]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
assert backend == {"name": service["metadata"]["name"], "port": {"name": "web"}}

services = load("deploy/docker/compose.yaml")[0]["services"]
app = services["app"]
check(app["environment"])
assert seconds(app["stop_grace_period"]) > seconds(app["environment"]["HAFT_FLAG_DRAIN_TIMEOUT"])
assert app["healthcheck"]["test"] == ["CMD", "/usr/bin/haft", "health"]
subprocess.run([HAFT, "health", "--help"], check=True, capture_output=True)
assert set(services) == {"app", "redis", "proxy"}
