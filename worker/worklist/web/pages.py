"""How a page is made of a template, and a style sheet or script served."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response

from schemas.decision import Urgency
from schemas.findings import FINDINGS
from schemas.person import ROLE_WORDS, Role
from worker.worklist.web import triage, words

HERE: Final = Path(__file__).parent
# The pages by which one goes about, and who may see them.
PAGES: Final = (
    ("/", "Worklist", frozenset(Role)),
    ("/second-look", "Second look", frozenset(Role)),
    ("/policy", "Policy", frozenset(Role)),
    ("/models", "Models", frozenset({Role.ADMINISTRATOR, Role.AUDITOR})),
    ("/training", "Training", frozenset({Role.ADMINISTRATOR, Role.AUDITOR})),
    ("/watching", "Watching", frozenset(Role)),
    ("/people", "People", frozenset({Role.ADMINISTRATOR, Role.AUDITOR})),
    ("/audit", "Audit trail", frozenset({Role.ADMINISTRATOR, Role.AUDITOR})),
)
REJECTIONS: Final = 20  # shown at most


def environment() -> Environment:
    """Templates: escaped everywhere, and a name that is not there is an error."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= words.FILTERS | {"standing": triage.standing}
    made.globals |= {
        "levels": tuple(reversed(Urgency)),
        "states": words.STATES,
        "deliveries": words.DELIVERIES,
        "consistencies": words.CONSISTENCIES,
        "every_finding": FINDINGS,
        "roles": ROLE_WORDS,
        "pages": PAGES,
        "most_rejections": REJECTIONS,
    }
    return made


class Static(StaticFiles):
    """Style and script: kept by the browser, asked for again each time whether they have changed."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """With the word that it is asked for again."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response
