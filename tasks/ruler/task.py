"""RULER (arXiv 2404.06654) at one length, on documents that lm-eval's generators made for the model's tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olmes_suite.errors import MissingData
from olmes_suite.records import Scored
from olmes_suite.scoring import scorer
from olmes_suite.tasks.documents import find_split
from olmes_suite.tasks.task import SuiteTask


class RulerTask(SuiteTask):
    """A task whose documents are made beforehand, because their length is counted in the model's tokens."""

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Look for the documents. Raises MissingData with the command that makes them."""
        super().download(dataset_kwargs, **kwargs)
        source, spec = self.dataset.source, self.spec
        if not source.sample and find_split(source, spec, "test") is None:
            length = str(spec.config).rsplit("_", 1)[1]
            raise MissingData(
                f"the documents of {spec.config} are made for the model's tokenizer and lie in no mirror here; on a "
                f"machine with a network: olmes data ruler --tokenizer MODEL --length {length} --out DATA_DIR"
            )


@scorer()
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the share of the wanted texts that the response contains, in any case of letters."""
    text = response.strip().lower()
    wanted = list(doc["outputs"])
    return Scored({"recall": sum(one.lower() in text for one in wanted) / len(wanted)}, text[:200], failed=not text)


def gold(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 1."""
    return ", ".join(doc["outputs"])


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 0."""
    return "?"
