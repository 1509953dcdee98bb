"""`helium view`: a traced run in the browser, or two side by side."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import click

from helium_agents.cli.options import FILE, POSITIVE, debug_option, echo_warning, examples
from helium_agents.cli.private_file import private_file
from helium_agents.cli.report import told_if_long
from helium_agents.errors import InputError
from helium_agents.viewer.page import page
from helium_agents.viewer.runs import ViewedRuns
from helium_agents.viewer.server import ViewerServer


@click.command(
    epilog=examples(
        "helium view run.trace",
        "helium view before.trace after.trace",
        "helium view run.trace --html run.html",
    )
)
@click.argument("trace", type=FILE)
@click.argument("second", type=FILE, required=False)
@click.option(
    "--html", "html", type=FILE, metavar="FILE",
    help="Write the page with everything in it to a file, and serve nothing.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="With --html: replace the file if it is there.")
@click.option(
    "--row", "rows", type=POSITIVE, multiple=True, metavar="N",
    help="Of a run that is too long to show whole: a row to show, counted from 1; may be repeated.",
)  # fmt: skip
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=0, metavar="N",
    help="Where to serve. [default: a port that is free]",
)  # fmt: skip
@click.option("--open/--no-open", "opens", default=True, help="Open the browser. [default: open]")
@debug_option
def view(
    trace: Path,
    second: Path | None,
    html: Path | None,
    overwrite: bool,
    rows: tuple[int, ...],
    port: int,
    opens: bool,
) -> None:
    """Show a traced run in the browser: what was computed, when, what it shared and lost.

    TRACE is what `helium run --trace` or a session wrote; of a run that goes on the page shows what
    is new. With a second trace both runs stand side by side.
    """
    runs = ViewedRuns([trace, *([second] if second else [])], rows=[row - 1 for row in rows])
    with told_if_long(f"{trace} is long: it is still being read and analyzed ..."):
        num_rows = runs.get("run-0")["num_rows"]
        if second is not None:
            runs.get("comparison")
    if rows and max(rows) > num_rows:
        echo_warning(f"--row {max(rows):,}: {trace} has {num_rows:,} rows")
    if html is not None:
        data = page({name: runs.get(name) for name in runs.every}).encode()
        with private_file(html, overwrite=overwrite, made_of=[trace, second]) as file:
            file.write(data)
        private = "; prompts and answers are in it" if runs.has_content else ""
        click.echo(f"{html}: {len(data):,} bytes{private}")
        return
    try:
        server = ViewerServer(runs, port)
    except OSError as error:
        raise InputError(f"port {port} cannot be served: {error.strerror}") from error
    with server:
        click.echo(f"{server.url}\nCtrl-C ends it.")
        if opens and not _has_display():
            port = server.server_port
            click.echo(
                "There is no display here. To open it on another machine, run there: "
                f"ssh -L {port}:127.0.0.1:{port} THIS_MACHINE"
            )
        elif opens:
            threading.Thread(target=click.launch, args=(server.url,), daemon=True).start()
        server.serve_forever()


def _has_display() -> bool:
    """Whether a browser could open a window: a program for the terminal would hide the address."""
    if not sys.platform.startswith("linux"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
