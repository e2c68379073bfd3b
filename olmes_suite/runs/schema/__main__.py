"""Write the JSON Schemas of the recorded files: `python -m olmes_suite.runs.schema [FOLDER]` (docs/schemas)."""

import sys
from pathlib import Path

from olmes_suite.runs.schema.json_schema import write_schemas

for written in write_schemas(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/schemas")):
    print(written)
