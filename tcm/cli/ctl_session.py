"""What the commands of ``tcm-ctl`` have in common: the connection, where relative paths start, how to print."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from tcm.cli.state import CONTROL, default_directory

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from tcm.control.client import Client, Refused

PROGRAM = "tcm-ctl"
ENVIRONMENT = "TCM_CONTROL"


class Ctl:
    """What the commands have in common: the connection, the current group of the shell, and how to print."""

    def __init__(self) -> None:
        self._control: str | None = None
        self.as_json = False
        self.answer: int | None = None
        """Exit code of a command that is a question, however it ends; ``None``: it is none."""
        self.here = ""
        """The group that relative paths start from."""
        self._client: Client | None = None

    @property
    def control(self) -> str:
        """Path of the control socket."""
        return self._control or os.environ.get(ENVIRONMENT) or os.path.join(default_directory(), CONTROL)

    def use(self, control: str) -> None:
        """Another control socket from now on."""
        self.close()
        self._client, self._control = None, control

    def call(self, method: str, **params: Any) -> Any:
        """Calls a method of the process. Raises ClientError, Refused."""
        from tcm.control.client import Client, ClientError, Refused

        fresh = self._client is None
        if self._client is None:
            self._client = Client(self.control)
        try:
            return self._client.call(method, **params)
        except Refused as error:
            raise self._with_suggestion(error) from None
        except ClientError:
            self._client.close()
            self._client = None
            # the shell outlives a restart of tcm-run; what only looks can be asked again
            if fresh or method not in _LOOKING:
                raise
            self._client = Client(self.control)
            return self._client.call(method, **params)

    def _with_suggestion(self, error: Refused) -> Refused:
        """What is not there may be there in another spelling."""
        from tcm.control.client import ClientError, Refused
        from tcm.options import suggestion

        missing = _MISSING.search(str(error)) if error.name == "ENOENT" else None
        if missing is None or self._client is None:
            return error
        try:
            there = self._client.call("list", path=missing["where"], depth=1)["children"]
        except (Refused, ClientError):
            return error
        return Refused(error.number, f"{error}{suggestion(missing['name'], there)}")

    def wait_longer(self, seconds: float) -> None:
        """The next call takes so much time."""
        if self._client is not None:
            self._client.wait_longer(seconds)

    def close(self) -> None:
        """Ends the connection."""
        if self._client is not None:
            self._client.close()

    def path(self, text: str) -> str:
        """A path from the root, of one that may be relative to the shell's group."""
        absolute = text.startswith("/")
        text = text.removeprefix("/sys/kernel/config/target")
        names = [] if absolute or not self.here else self.here.split("/")
        for name in text.split("/"):
            if name == "..":
                names = names[:-1]
            elif name not in {"", "."}:
                names.append(name)
        return "/".join(names)

    @functools.cached_property
    def console(self) -> Console:
        """Where tables go: colours on a terminal only; in a pipe as wide as they are."""
        from rich.console import Console

        if sys.stdout.isatty():
            return Console(highlight=False, soft_wrap=False)
        return Console(highlight=False, no_color=True, width=max(int(os.environ.get("COLUMNS", "0") or 0), 200))

    def show_plan(self, operations: Any, *, done: bool = False) -> None:
        """What is to be done, or has been done: in a pipe with whole paths."""
        from tcm.cli import ctl_output

        # a path is never broken up: whoever copies it gets all of it
        self.console.print(ctl_output.plan(operations, done=done, headings=self.console.is_terminal), soft_wrap=True)

    def show(self, value: Any, people: Callable[[Any], None]) -> None:
        """As JSON, or for people."""
        if self.as_json:
            click.echo(json.dumps(value, indent=2))
        else:
            people(value)


_MISSING = re.compile(r": '(?P<name>[^']+)' is not in /(?P<where>\S*)$")
_LOOKING = {"version", "read", "stat", "list", "sessions", "units", "statistics", "changes", "export", "diff", "left_out"}


def with_json(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--json`` may stand behind the command as well; the function gets the :class:`Ctl`."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @click.pass_obj
    @functools.wraps(function)
    def with_json(ctl: Ctl, /, *args: Any, as_json: bool, **kwargs: Any) -> Any:
        before = ctl.as_json
        ctl.as_json = before or as_json
        try:
            return function(ctl, *args, **kwargs)
        finally:
            ctl.as_json = before

    return with_json
