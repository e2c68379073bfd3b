"""Models whose attention logits are capped run with an implementation that caps them, whatever transformers chooses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from olmes_suite.models.local.loading import cap_attention


@pytest.mark.parametrize(
    ("cap", "chosen", "used"),
    [(50.0, "sdpa", "eager"), (50.0, "flash_attention_2", "flash_attention_2"), (None, "sdpa", "sdpa")],
)
def test_sdpa_leaves_the_cap_out(cap: float | None, chosen: str, used: str) -> None:
    text = SimpleNamespace(attn_logit_softcapping=cap)
    config: Any = SimpleNamespace(_attn_implementation=chosen, get_text_config=lambda decoder: text)
    model = SimpleNamespace(
        config=config, set_attn_implementation=lambda name: setattr(config, "_attn_implementation", name)
    )
    cap_attention(model)
    assert config._attn_implementation == used
