"""OpenAPI of all applications together, and a page that shows it without the internet."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.responses import HTMLResponse, Response

from serve.schemas import BatchRequest, SignalRequest

DESCRIPTION = """Live US-equity tape to reinforcement-learning signals.

Times are RFC 3339 in UTC. Listings are newest first with `limit`, `start`, `end` and an opaque
`next`. Every error is `{"error":{"code","message","detail"}}`; 503 carries `Retry-After`.

**WebSocket `/v1/stream`.** The client sends
`{"action":"subscribe","channels":["trades","quotes","bars","rollups","features","provisional",
"signals","stats","anomalies","fills","alerts","system"],"symbols":["AAPL"]}` (or `["*"]`; with
`"after_seq":n` it gets what it missed instead of a snapshot), `{"action":"unsubscribe", …}` or
`{"action":"ping"}`.
The server answers `{"channel":"subscribed"|"unsubscribed"|"pong"|"error", …}` and sends updates
`{"channel","symbol","seq","event_time","sent_at","data"}`; those of a snapshot have
`"snapshot":true`. A client that does not take its updates is told `too_slow` and closed.
"""

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1"><title>raytape API</title><style>
:root{color-scheme:light dark;--line:#8883;--soft:#888;--card:#8881}
body{font:15px/1.55 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.05rem;margin:2rem 0 .5rem;text-transform:capitalize}
details{border:1px solid var(--line);border-radius:8px;margin:.4rem 0;padding:.5rem .8rem}
summary{cursor:pointer}code,pre{font:13px/1.5 ui-monospace,monospace}
pre{background:var(--card);padding:.7rem;border-radius:6px;overflow:auto}
.m{display:inline-block;width:3.6rem;font-weight:600}.s{color:var(--soft)}
table{border-collapse:collapse;width:100%}td{border-top:1px solid var(--line);padding:.3rem .5rem;
vertical-align:top}</style></head><body><h1>raytape API</h1>
<p><a href="/openapi.json">openapi.json</a> · <a href="/">dashboard</a></p>
<div id="about" style="white-space:pre-line"></div><div id="paths"></div>
<script type="module" src="/docs.js"></script></body></html>"""

SCRIPT = """const el=(tag,props={},...kids)=>{
const e=Object.assign(document.createElement(tag),props);e.append(...kids);return e};
const doc=await (await fetch("/openapi.json")).json();
document.getElementById("about").textContent=doc.info.description;
const deref=s=>s&&s.$ref?doc.components.schemas[s.$ref.split("/").pop()]:s;
const kind=s=>{if(!s)return "";if(s.$ref)return s.$ref.split("/").pop();
if(s.anyOf)return s.anyOf.map(kind).join(" | ");
if(s.enum)return s.enum.map(v=>JSON.stringify(v)).join(" | ");
if(s.type==="array")return kind(s.items)+"[]";return s.type||
(s.const!==undefined?JSON.stringify(s.const):"any")};
const table=s=>{s=deref(s);if(!s||!s.properties)return el("p",{},kind(s));
return el("table",{},...Object.entries(s.properties).map(([n,p])=>el("tr",{},
el("td",{},el("code",{},n+((s.required||[]).includes(n)?"":"?"))),
el("td",{},el("code",{},kind(p))),el("td",{},p.description||""))))};
const json=c=>c&&c["application/json"]&&c["application/json"].schema;
const groups={};
for(const [path,ops] of Object.entries(doc.paths))for(const [method,op] of Object.entries(ops))
(groups[(op.tags||["other"])[0]]??=[]).push([path,method,op]);
for(const [tag,ops] of Object.entries(groups)){const box=document.getElementById("paths");
box.append(el("h2",{},tag));
for(const [path,method,op] of ops){const d=el("details",{},el("summary",{},
el("span",{className:"m"},method.toUpperCase()),el("code",{},path),
el("span",{className:"s"}," "+(op.summary||""))),el("p",{},op.description||""));
if(op.parameters)d.append(el("p",{},"Parameters"),el("table",{},...op.parameters.map(p=>el("tr",{},
el("td",{},el("code",{},p.name)),el("td",{},el("code",{},kind(p.schema))),el("td",{},p.description||"")))));
const body=json(op.requestBody&&op.requestBody.content);
if(body)d.append(el("p",{},"Request"),table(body));
const ok=json(op.responses["200"]&&op.responses["200"].content);
if(ok)d.append(el("p",{},"Answer "+kind(ok)),table(ok));box.append(d)}}
"""


def openapi(apps: list[FastAPI]) -> dict[str, Any]:
    """One OpenAPI document of several applications."""
    try:
        release = version("raytape")
    except PackageNotFoundError:
        release = "0"
    document = get_openapi(
        title="raytape",
        version=release,
        description=DESCRIPTION,
        routes=[route for app in apps for route in app.routes],
    )
    # Bodies that are read by hand, for speed, are described by hand.
    _, extra = models_json_schema(
        [(SignalRequest, "validation"), (BatchRequest, "validation")],
        ref_template="#/components/schemas/{model}",
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name, schema in extra["$defs"].items():
        schemas.setdefault(name, schema)
    return document


def complete(gateway: FastAPI) -> dict[str, Any]:
    """The document of all our applications."""
    from serve.api import signals, stream

    return openapi([signals.build(), gateway, stream.build()])


def add(app: FastAPI) -> None:
    """Serve ``/openapi.json`` and ``/docs``."""
    cached: list[bytes] = []

    async def document() -> Response:
        if not cached:
            cached.append(orjson.dumps(complete(app)))
        return Response(cached[0], media_type="application/json")

    async def page() -> Response:
        return HTMLResponse(PAGE)

    async def script() -> Response:
        return Response(SCRIPT, media_type="text/javascript")

    for path, handler in (("/openapi.json", document), ("/docs", page), ("/docs.js", script)):
        app.add_api_route(path, handler, include_in_schema=False, response_model=None)
