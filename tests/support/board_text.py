"""Texts that a page must not interpret, and a recorded score."""

from __future__ import annotations

ONE = (("tulu3_gsm8k", "math"),)


HOSTILE = "</script><img src=x onerror=ran=1><script>ran=2</script>\u202e\u0000 {{7*7}} '\"&amp;\ud83d\ude00\u2028"
