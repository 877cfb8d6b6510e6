"""The paper's tables, a script each.

The hub's library reads HF_HUB_OFFLINE when it is first imported, so `--offline` is looked for here, before.
"""

import os
import sys

if "--offline" in sys.argv:
    os.environ["HF_HUB_OFFLINE"] = "1"
