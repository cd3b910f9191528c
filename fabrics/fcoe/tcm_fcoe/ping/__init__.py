"""``python -m tcm_fcoe.ping PORT``: is a port there, how long does it take to answer, and what does it say of itself?

ECHO again and again, with statistics, as fcping of fcoe-utils does; ADISC, PDISC, RNID, RTV and RLS on demand. The N_Port that
asks does no FCP: a target gets no I_T nexus from it.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import click

from tcm.command_line.running import CONTEXT, run_async
from tcm.command_line.running import run_command as run
from tcm.failure import ConfigError, RuntimeFailure
from tcm_fcoe.initiator.driver import attach
from tcm_fcoe.initiator.link_services import LinkServices, NoReply, Refused
from tcm_fcoe.initiator.options import Options
from tcm_fcoe.ping.facts import QUESTIONS, text_of
from tcm_fcoe.protocol.names import InvalidName, colon_form, format_fc_id, parse_fc_id, parse_name

if TYPE_CHECKING:
    from tcm_fcoe.initiator.driver import InitiatorPort

PROGRAM = "python -m tcm_fcoe.ping"
MODES = ("vn2vn", "fabric", "p2p", "fcf")
LARGEST = 2112 - 4
PATTERN = bytes(range(256))

_EPILOG = f"""\b
PORT is a WWPN (20:00:52:54:00:2f:fc:00) or an FC_ID (00.fc.00, 0x00fc00); in a fabric also that of a service: ff.ff.fe is the
F_Port of the switch that we are attached to, ff.ff.fd its fabric controller, ff.ff.fc the directory server.

\b
Examples:
  {PROGRAM} --interface eth1 20:00:52:54:00:2f:fc:00
  {PROGRAM} --interface eth1 --count 100 --interval 0.01 --size 2048 00.fc.00
  {PROGRAM} --interface eth1 --count 0 --ask all --json 00.fc.00
  {PROGRAM} --interface eth1 --mode fabric --vlan 100 --ask rtv,rls ff.ff.fe
  {PROGRAM} --interface eth1 --mode fabric --count 0 --ask rls --of 01.00.02 ff.ff.fd
  {PROGRAM} --interface unix:/tmp/l/initiator,/tmp/l/tcm 20:00:52:54:00:2f:fc:00

\b
Exit codes: 0 all has been answered, 1 something has not, or there is no such port, 2 bad usage.
"""


@dataclass(slots=True)
class Echoes:
    """What came of them."""

    size: int
    sent: int = 0
    refused: int = 0
    lost: int = 0
    seconds: list[float] = field(default_factory=list)
    """Round trips of those that were answered."""

    def as_dict(self) -> dict[str, Any]:
        """With times in milliseconds."""
        times = [each * 1e3 for each in self.seconds]
        found: dict[str, Any] = {
            "bytes": self.size, "sent": self.sent, "answered": len(times), "refused": self.refused, "lost": self.lost,
        }  # fmt: skip
        if times:
            found["milliseconds"] = {"minimum": min(times), "mean": sum(times) / len(times), "maximum": max(times)}
        return found

    def __str__(self) -> str:
        text = f"{self.sent} sent, {len(self.seconds)} answered, {self.refused} refused, {self.lost} lost"
        if self.seconds:
            low, mean, high = (value * 1e3 for value in (min(self.seconds), self.mean, max(self.seconds)))
            text += f"; round trips minimum {low:.3f}, mean {mean:.3f}, maximum {high:.3f} ms"
        return text

    @property
    def mean(self) -> float:
        """Seconds."""
        return sum(self.seconds) / len(self.seconds)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asks for."""

    whom: bytes | int
    count: int
    interval: float
    size: int
    tests: int
    asks: tuple[str, ...]
    of: int
    timeout: float
    login_timeout: float
    as_json: bool

    def say(self, text: str) -> None:
        """A line for people."""
        if not self.as_json:
            click.echo(text)


def _port(text: str) -> bytes | int:
    for parse in (parse_fc_id, parse_name):
        try:
            return parse(text)
        except InvalidName:
            continue
    raise ConfigError(f"PORT {text[:40]!r}: write a WWPN, such as 20:00:52:54:00:2f:fc:00, or an FC_ID, such as 01.00.01")


def _named(flag: str, text: str | None, parse: Any) -> Any:
    try:
        return parse(text) if text is not None else None
    except InvalidName as e:
        raise ConfigError(f"{flag}: {e}") from None


def _asks(text: str) -> tuple[str, ...]:
    names = [each.strip().lower() for each in text.split(",") if each.strip()]
    for name in names:
        if name not in QUESTIONS and name != "all":
            raise ConfigError(f"--ask {name[:20]}: write all, or some of {', '.join(QUESTIONS)} with commas between them")
    return tuple(name for name in QUESTIONS if name in names or "all" in names)


class Unanswered(RuntimeFailure):
    """Something had no answer: one line."""


@click.command(PROGRAM, epilog=_EPILOG, context_settings=CONTEXT)
@click.argument("port", metavar="PORT")
@click.option("--interface", required=True, metavar="IF", help="A network interface, or unix:LOCAL,PEER.")
@click.option("--mode", type=click.Choice(MODES), default="vn2vn", show_default=True, help="How the other side works.")
@click.option("--vlan", type=click.IntRange(1, 4094), help="Tag all frames.")
@click.option("--wwpn", metavar="NAME", help="Our port name.  [default: from the MAC address]")
@click.option("--wwnn", metavar="NAME", help="Our node name.  [default: from the MAC address]")
@click.option("--count", "-c", type=click.IntRange(0), default=5, show_default=True, help="ECHOs.")
@click.option("--interval", "-i", type=click.FloatRange(0), default=1.0, show_default=True, help="Seconds between them.")
@click.option("--size", "-s", type=click.IntRange(0, LARGEST), default=64, show_default=True, help="Bytes that each carries.")
@click.option("--ask", default="", metavar="LIST", help=f"Some of {','.join(QUESTIONS)}, or all.")
@click.option("--of", metavar="FC_ID", help="The port of a switch that RLS is to tell of.  [default: the one that is asked]")
@click.option("--test", "tests", type=click.IntRange(0), default=0, help="Send so many TESTs too, which nothing answers.")
@click.option("--timeout", type=click.FloatRange(0.01), default=5.0, show_default=True, help="Seconds for each reply.")
@click.option("--login-timeout", type=click.FloatRange(0.1), default=15.0, show_default=True, help="Seconds to find the port.")
@click.option("--pcap", metavar="FILE", help="Write all frames to a capture file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object at the end.")
def command(**given: Any) -> None:
    """Send ECHO to a port, and ask what it says of itself.

    The interface is wanted for the N_Port that asks: no other Fibre Channel port may use it meanwhile.
    """
    plan = Plan(
        _port(given["port"]), given["count"], given["interval"], given["size"], given["tests"], _asks(given["ask"]),
        _named("--of", given["of"], parse_fc_id) or 0, given["timeout"], given["login_timeout"], given["as_json"],
    )  # fmt: skip
    names = {"port_name": _named("--wwpn", given["wwpn"], parse_name), "node_name": _named("--wwnn", given["wwnn"], parse_name)}

    async def go() -> None:
        with ExitStack() as stack:
            capture = None
            if given["pcap"] is not None:
                from tcm_fcoe.capture import CaptureFile

                capture = stack.enter_context(CaptureFile(given["pcap"]))
            how = {"mode": given["mode"], "vlan": given["vlan"], "capture": capture, **names}
            async with attach(given["interface"], options=Options(function=False), **how) as port:
                for notice in port.link.notices:
                    click.echo(f"{PROGRAM}: {notice}", err=True)
                await _examine(port, plan)

    run_async(go)


async def _examine(port: InitiatorPort, plan: Plan) -> None:
    services = LinkServices(port)
    fc_id = await services.find(plan.whom, timeout=plan.login_timeout)
    room = services.echo_room(fc_id)
    if plan.size > room and plan.count:
        raise ConfigError(f"--size {plan.size}: a frame between the two ports has room for {room} bytes")
    remote = port.port.remotes.get(fc_id)
    report: dict[str, Any] = {"fc_id": format_fc_id(fc_id)}
    if remote is not None and remote.logged_in:
        report |= {"port_name": colon_form(remote.port_name), "node_name": colon_form(remote.node_name)}
    report["from"] = {"port_name": colon_form(port.port.port_name), "fc_id": format_fc_id(port.port.fc_id)}
    who = f"{report['port_name']} ({report['fc_id']})" if "port_name" in report else report["fc_id"]
    plan.say(f"{who} from {report['from']['port_name']} ({report['from']['fc_id']})")
    failed = await _ask_all(services, fc_id, plan, report)
    for _ in range(plan.tests):
        services.test(fc_id, (PATTERN * 9)[: plan.size])
    if plan.tests:
        report["test"] = {"sent": plan.tests}
        plan.say(f"TEST   {plan.tests} sent")
    if plan.count:
        echoes = Echoes(plan.size)
        try:
            await _echo(services, fc_id, plan, echoes)
        finally:  # whoever interrupts it wants to know this most of all
            report["echo"] = echoes.as_dict()
            plan.say(str(echoes))
        failed += echoes.refused + echoes.lost
    if plan.as_json:
        click.echo(json.dumps(report, indent=2))
    if failed:
        raise Unanswered(f"{who}: {failed} requests without LS_ACC")


async def _ask_all(services: LinkServices, fc_id: int, plan: Plan, report: dict[str, Any]) -> int:
    """How many went wrong."""
    failed = 0
    for name in plan.asks:
        question = QUESTIONS[name]
        try:
            reply = await services.ask(fc_id, question.request(services.port.port, plan.of), timeout=plan.timeout)
        except (NoReply, Refused) as e:
            failed += 1
            report[name] = {"error": str(e)}
            plan.say(f"{name.upper():6} {e}")
        else:
            report[name] = question.facts(reply.payload)
            plan.say(f"{name.upper():6} {text_of(report[name])}")
    return failed


async def _echo(services: LinkServices, fc_id: int, plan: Plan, echoes: Echoes) -> None:
    data = (PATTERN * 9)[: plan.size]
    for number in range(plan.count):
        if number:
            await anyio.sleep(plan.interval)
        echoes.sent += 1
        try:
            reply = await services.echo(fc_id, data, timeout=plan.timeout)
        except Refused as e:
            echoes.refused += 1
            plan.say(f"ECHO   {number + 1}: {e}")
        except NoReply as e:
            echoes.lost += 1
            plan.say(f"ECHO   {number + 1}: {e}")
        else:
            echoes.seconds.append(reply.seconds)
            plan.say(f"ECHO   {number + 1}: {len(data)} bytes, {reply.seconds * 1e3:.3f} ms")


def main() -> None:
    """Run the command and end the process with its exit code."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """The exit code of these arguments. Errors are one line on standard error."""
    return run(command, PROGRAM, arguments)
