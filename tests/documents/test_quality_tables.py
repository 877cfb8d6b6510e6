"""README's tables of quality are those of RESULTS.md, which one command makes of one set of rows."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MARKS = r"<!-- tables of benchmarks\.quality -->\n(.*)<!-- end of these tables -->"


def test_readme_has_the_tables_of_the_whole_page() -> None:
    page = (ROOT / "benchmarks/quality/RESULTS.md").read_text(encoding="utf-8")
    found = re.search(MARKS, (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    parts = re.split(
        r"^\*\*(.+)\*\*, (dense .+)\. `python -m benchmarks\.quality`\n\n", found[1], flags=re.MULTILINE
    )
    titles, dense, tables = parts[1::3], parts[2::3], parts[3::3]
    assert len(titles) == 6
    for title, judged, table in zip(titles, dense, tables, strict=True):
        assert f"### {title}; {judged}\n\n{table.strip()}\n\n" in page
