"""Renders the templates of more_snippets.jsonl again with transformers' own environment and writes what it gives.

Usage: python record.py (needs transformers and jinja2). A row's template stays, its output or error is replaced.
"""
import datetime
import json
import pathlib

import transformers.utils.chat_template_utils as chat

FOLDER = pathlib.Path(__file__).parent
CONTEXT = json.loads((FOLDER / "more_context.json").read_text())


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromisoformat("2025-03-04T05:06:07")


def record(template):
    try:
        context = json.loads(json.dumps(CONTEXT))
        return {"template": template, "output": chat._cached_compile_jinja_template(template).render(**context)}
    except Exception as error:
        return {"template": template, "error": {"type": type(error).__name__, "message": str(error)}}


chat.datetime = Clock
path = FOLDER / "more_snippets.jsonl"
templates = [json.loads(line)["template"] for line in path.read_text().split("\n") if line]
path.write_text("".join(json.dumps(record(t), ensure_ascii=False) + "\n" for t in templates))
