"""The texts that TypeScript's chat rendering is checked against are what transformers makes of the same templates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest
from transformers.utils.chat_template_utils import render_jinja_template

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden/chat-templates.json").read_text())


@pytest.mark.parametrize("style", GOLDEN["styles"], ids=lambda style: style["style"])
def test_transformers_renders_the_golden_texts(style: dict[str, Any]) -> None:
    def rendered(messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        texts, _ = render_jinja_template(
            [messages],
            chat_template=style["template"],
            add_generation_prompt=add_generation_prompt,
            bos_token=style["bosToken"],
            eos_token=style["eosToken"],
            **GOLDEN["settings"],
        )
        return str(texts[0])

    for conversation in style["conversations"]:
        question = (conversation["messages"], conversation["addGenerationPrompt"])
        if conversation["text"] is None:
            with pytest.raises(jinja2.TemplateError):
                rendered(*question)
        else:
            assert rendered(*question) == conversation["text"]
