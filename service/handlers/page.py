"""The live page."""

from importlib.resources import files
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from service.handlers.models import LIMITED, Answers, Problem

_LIMITED: Final[Answers] = {
    # a model here would be taken for HTML, as the page is
    429: {key: value for key, value in LIMITED[429].items() if key != "model"}
    | {"content": {"application/json": {"schema": Problem.model_json_schema()}}}
}


def page_routes() -> APIRouter:
    """``/``: one page without any asset from elsewhere."""
    router = APIRouter(tags=["page"], responses=_LIMITED)
    page = (files("service.web") / "index.html").read_text(encoding="utf-8")

    @router.get("/", summary="Live page", response_class=HTMLResponse)
    async def read_page() -> str:
        return page

    return router
