"""The live page."""

from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse


def page_routes() -> APIRouter:
    """``/``: one page without any asset from elsewhere."""
    router = APIRouter(tags=["page"])
    page = (files("service.web") / "index.html").read_text(encoding="utf-8")

    @router.get("/", summary="Live page", response_class=HTMLResponse)
    async def read_page() -> str:
        return page

    return router
