"""What mkdocs needs beside the pages: those at the root, and links that leave the folder."""

import os.path
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
ROOT_PAGES = ("RESULTS.md", "CHANGELOG.md", "CONTRIBUTING.md")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages at the root."""
    from mkdocs.structure.files import File  # pyright: ignore[reportMissingImports]

    for name in ROOT_PAGES:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Sends links out of the folder to the pages at the root, or to the repository.

    On the forge they are right as they stand. Without a `repo_url` a link to a file that is no page
    is its text.
    """
    source = page.file.src_uri
    folder = "" if source in ROOT_PAGES else os.path.dirname(f"docs/{source}")

    def moved(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = os.path.normpath(os.path.join(folder, target)).replace(os.sep, "/")
        page_path = path if path in ROOT_PAGES else path.removeprefix("docs/")
        if page_path != path or path in ROOT_PAGES:
            relative = os.path.relpath(page_path, os.path.dirname(source)).replace(os.sep, "/")
            return f"[{text}]({relative}{anchor})"
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{path}{anchor})"
        return f"`{path}`" if text.strip("`") in path else f"{text} (`{path}`)"

    return _LINK.sub(moved, markdown)
