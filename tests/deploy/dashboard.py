"""Holds what the dashboard and the alerts ask for against the metrics of a running haft.

    python3 tests/deploy/dashboard.py METRICS QUERIES

METRICS is what /metrics says. QUERIES is written: the dashboard's queries as recording rules, for promtool to read.
"""
import json
import re
import sys

DASHBOARD = "deploy/grafana/haft.json"
RULES = "deploy/prometheus/haft.rules.yml"
METRIC = re.compile(r"\b(?:haft|process)_[a-z0-9_]+\b")
SELECTED = re.compile(r"\b((?:haft|process)_[a-z0-9_]+)\{([^}]*)\}")
# What Prometheus adds, and what the sample of a histogram's bucket has.
ALWAYS = {"job", "instance", "le"}


def read(path):
    """The names of all samples, and the labels of those families that have samples."""
    names, labels = set(), {}
    for line in open(path, encoding="utf-8"):
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            names |= {name} | ({name + end for end in ("_bucket", "_sum", "_count")} if kind == "histogram" else set())
        elif not line.startswith("#"):
            name, _, rest = re.match(r"([a-z0-9_]+)(\{(.*)\})? ", line).groups()
            labels.setdefault(name, set()).update(re.findall(r'(\w+)="', rest or ""))
    return names, labels


def panels(dashboard):
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def check_layout(dashboard):
    shown = list(panels(dashboard))
    numbers = [panel["id"] for panel in shown]
    assert len(numbers) == len(set(numbers)), "two panels have one number"
    taken = {}
    for panel in shown:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, f"{panel['title']}: it is too wide"
        for cell in ((x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])):
            assert cell not in taken, f"{panel['title']} lies on {taken[cell]}"
            taken[cell] = panel["title"]
    for target in (target for panel in shown for target in panel.get("targets", [])):
        assert target["datasource"]["uid"] == "${datasource}", "a query names a data source of its own"


def main(metrics, queries):
    names, labels = read(metrics)
    dashboard = json.load(open(DASHBOARD, encoding="utf-8"))
    check_layout(dashboard)
    asked = [target["expr"] for panel in panels(dashboard) for target in panel.get("targets", [])]
    variables = [variable["definition"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    rules = open(RULES, encoding="utf-8").read()
    assert len(asked) > 30, f"only {len(asked)} queries"
    for text in [*asked, *variables, rules]:
        # In the rules' comments and descriptions metrics are named, too: they are to be right as well.
        for name in METRIC.findall(text):
            assert name in names, f"{name} is none of haft's metrics: {text[:200]}"
        for name, selector in SELECTED.findall(text):
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector):
                known = labels.get(name)
                assert known is None or label in known | ALWAYS, f"{name} has no label {label}"
    with open(queries, "w", encoding="utf-8") as out:
        out.write("groups:\n  - name: dashboard\n    rules:\n")
        for number, query in enumerate(asked):
            query = query.replace("$__rate_interval", "1m").replace("$job", "x").replace("$instance", "x")
            out.write(f"      - {{record: 'dashboard:query:{number}', expr: {json.dumps(query)}}}\n")
    print(f"{len(asked)} queries, {len(names)} metrics")


main(*sys.argv[1:])
