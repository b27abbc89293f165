r"""What a build says → lines, the step that failed, and its line in the Dockerfile.

Two builders speak here: the engine's classic one,

    Step 3/3 : RUN pip install -r requirements.txt
     ---> Running in 36e4133cce4c
    ERROR: …

and BuildKit with `--progress plain`, which ends with the step that failed, since 0.9 with its lines too:

    #9 [stage-0 3/3] RUN pip install -r requirements.txt
    #9 0.412 ERROR: …
    ------
     > [stage-0 3/3] RUN pip install -r requirements.txt:
    ------
    Dockerfile:7
    --------------------
       7 | >>> RUN pip install -r requirements.txt
    --------------------
    ERROR: failed to solve: process "/bin/sh -c …" did not complete successfully: exit code: 1
"""

from __future__ import annotations

import itertools
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from orchestrator.dockerfile import Dockerfile, Instruction, read_dockerfile
from orchestrator.images.engine_words import NEEDS_BUILDKIT, build_remedy
from orchestrator.masking import concealed

LAST_LINES = 30
LONGEST_LINE = 2_000  # characters; what is longer is cut
_LONGEST_STEP = 120  # characters of a step's text that a message shows
_KEPT_LINES = 300  # BuildKit shows the whole instruction behind the output
_NUMBERED = frozenset({"FROM", "RUN", "COPY", "ADD", "WORKDIR"})  # what BuildKit counts in a stage

_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours and movements (ECMA-48)
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"  # all others but tab and the ends of lines
)
_CLASSIC_STEP = re.compile(r"Step (\d+)/(\d+) : (.*)")
_BUILDKIT_STEP = re.compile(r" > \[(?:(.*) )?\s*(\d+)/(\d+)\] (.*?):?")
_METADATA = re.compile(r" > (?:\[.*internal\] load metadata for|resolve image config for) (\S+?):?")
_SOURCE_LINE = re.compile(r"\S+:(\d+)")
_RULE = re.compile(r"-{20}")
_PARSE_ERROR = re.compile(r"dockerfile parse error (?:on )?line (\d+)", re.IGNORECASE)
_ERROR_LINE = re.compile(r"(?i)(?:error: |failed to |executor failed|unknown flag|invalid argument)")
_WRAPPING = re.compile(
    r"(?i)^(?:error: |failed to build: |failed to solve(?: with frontend \S+)?: |failed to create LLB definition: "
    r"|rpc error: code = \w+ desc = )+"
)
_EXIT_CODE = re.compile(
    r"(?:The command '.*' returned a non-zero code|executor failed running \[.*\]: exit code"
    r"|process \".*\" did not complete successfully: exit code): (\d+)"
)
_VARIABLE = re.compile(r"\\?\$(?:\w+|\\\{[^}]*\})")  # in a text that re.escape has gone over


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a build, as the builder counts it."""

    number: int
    total: int
    text: str  # the instruction, with variables filled in by BuildKit
    stage: str | None = None  # BuildKit counts in each stage; the classic builder through the file

    @property
    def name(self) -> str:
        """Of its instruction."""
        return self.text.strip().partition(" ")[0].upper()

    @property
    def title(self) -> str:
        """`Step 4/7: RUN pip install …`."""
        where = f" of {self.stage}" if self.stage else ""
        text = " ".join(self.text.split())
        shown = text if len(text) <= _LONGEST_STEP else f"{text[:_LONGEST_STEP]}…"
        return f"Step {self.number}/{self.total}{where}: {shown}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why a build has failed."""

    step: str  # its title; empty where it came to none
    line_number: int | None  # in the Dockerfile
    reason: str
    remedy: str


class BuildLog:
    """Takes what a build says, bit by bit, and tells it line by line.

    Secrets are hidden before anything is told or kept.

    Args:
        tell: gets each line.
        secrets: texts that must not be shown.
    """

    def __init__(self, tell: Callable[[str], None], secrets: Sequence[str] = ()) -> None:
        self._tell = tell
        # Secrets of several lines, such as keys, are told line by line.
        self._secrets = tuple({part for secret in secrets for part in (secret, *secret.splitlines()) if part.strip()})
        self._longest_raw = LONGEST_LINE + max(map(len, self._secrets), default=1)  # more than is shown
        self._rest = ""
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.step: Step | None = None  # the latest one of the classic builder

    @property
    def last_lines(self) -> tuple[str, ...]:
        return tuple(self._lines)[-LAST_LINES:]

    def take(self, text: str) -> None:
        """More of it; a line is told when it is complete."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._take_line(line)
        if len(self._rest) > self._longest_raw:
            self._rest = self._shortened(self._rest)

    def end(self) -> None:
        """There is no more."""
        rest, self._rest = self._rest, ""
        if rest:
            self._take_line(rest)

    def hide(self, text: str) -> str:
        """A text without the secrets."""
        return str(concealed(text, self._secrets))

    def failure(self, dockerfile_text: str, reason: str = "") -> Failure:
        """Why the build has failed.

        Args:
            dockerfile_text: what was built.
            reason: as the engine says it; empty: it is among the lines.
        """
        lines, dockerfile = tuple(self._lines), read_dockerfile(dockerfile_text)
        reason = _in_short(self.hide(cleaned(reason)) or _reason_in(lines))
        step = self.step or _buildkit_step(lines)
        line_number = _line_number(reason, lines, step, dockerfile)
        is_heredoc = step is None and _is_in_heredoc(line_number, dockerfile)  # read as instructions by older builders
        return Failure(
            step=step.title if step else "",
            line_number=line_number,
            reason=reason,
            remedy=NEEDS_BUILDKIT if is_heredoc else build_remedy(reason, self.last_lines),
        )

    def _take_line(self, raw: str) -> None:
        line = self.hide(cleaned(raw)[: self._longest_raw])
        line = line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…"
        self._lines.append(line)
        if match := _CLASSIC_STEP.fullmatch(line):
            self.step = Step(int(match[1]), int(match[2]), match[3])
        self._tell(line)

    def _shortened(self, rest: str) -> str:
        """As much of an unfinished line as may be shown of it, and a whole secret at the end of that."""
        plain = _CONTROL.sub("", rest)
        return plain[plain.rfind("\r", 0, -1) + 1 :][: self._longest_raw]


def cleaned(text: str) -> str:
    """A line as a terminal would show it: of a progress bar its last state, and no colours."""
    parts = [part for part in _CONTROL.sub("", text).split("\r") if part.strip()]
    return parts[-1].rstrip() if parts else ""


# ---------------------------------------------------------------------------------------------------------
# The step, and its line
# ---------------------------------------------------------------------------------------------------------


def _buildkit_step(lines: Iterable[str]) -> Step | None:
    for match in filter(None, map(_BUILDKIT_STEP.fullmatch, lines)):
        stage = (match[1] or "").split(" ")[-1]  # the platform stands before it
        return Step(int(match[2]), int(match[3]), match[4], stage)
    return None


def _line_number(reason: str, lines: Sequence[str], step: Step | None, dockerfile: Dockerfile) -> int | None:
    if match := _PARSE_ERROR.search(reason):
        return int(match[1])
    is_classic = step is not None and step.stage is None
    if not is_classic and (shown := _shown_line(lines)) is not None:
        return shown
    if step is not None:
        return _line_of_step(step, dockerfile)
    images = (match[1] for match in map(_METADATA.fullmatch, lines) if match)
    return next((_line_of_image(image, dockerfile) for image in images), None)


def _is_in_heredoc(line_number: int | None, dockerfile: Dockerfile) -> bool:
    inside = (each for each in dockerfile.instructions if each.heredocs)
    return line_number is not None and any(each.line_number < line_number <= each.end_line_number for each in inside)


def _shown_line(lines: Sequence[str]) -> int | None:
    """The line that BuildKit names above its excerpt of the Dockerfile."""
    for line, below in itertools.pairwise(lines):
        if (match := _SOURCE_LINE.fullmatch(line)) and _RULE.fullmatch(below):
            return int(match[1])
    return None


def _line_of_step(step: Step, dockerfile: Dockerfile) -> int | None:
    """By its number, or by its text: the steps of ONBUILD are counted too, and the file does not have them."""
    instructions = _of_stage(step, dockerfile)
    counted = [each for each in instructions if step.stage is None or each.name in _NUMBERED]
    is_countable = step.stage is None or len(counted) == step.total
    if is_countable and step.number <= len(counted) and counted[step.number - 1].name == step.name:
        return counted[step.number - 1].line_number
    return next((each.line_number for each in instructions if _fits(step, each)), None)


def _of_stage(step: Step, dockerfile: Dockerfile) -> Sequence[Instruction]:
    """The instructions of the step's stage, all of them where it is not known which."""
    if step.stage is None:
        return dockerfile.instructions
    for index, stage in enumerate(dockerfile.stages):
        is_only = not step.stage and len(dockerfile.stages) == 1
        if is_only or step.stage in (stage.name, f"stage-{index}"):
            ends = [later.line_number for later in dockerfile.stages[index + 1 :]]
            end = min(ends, default=math.inf)
            return [each for each in dockerfile.instructions if stage.line_number <= each.line_number < end]
    return dockerfile.instructions


def _fits(step: Step, instruction: Instruction) -> bool:
    """Whether a step shows this instruction; BuildKit fills in variables and drops escapes and quotes."""
    if step.name != instruction.name:
        return False
    shown, written = _comparable(step.text.strip().partition(" ")[2]), _comparable(_as_written(instruction))
    return re.fullmatch(_VARIABLE.sub(".*", re.escape(written)), shown) is not None


def _as_written(instruction: Instruction) -> str:
    flags = (f"--{name}={value}" if value else f"--{name}" for name, value in instruction.flags)
    return " ".join((*flags, instruction.arguments))


def _comparable(text: str) -> str:
    return "".join(text.translate({ord("\\"): None, ord('"'): None, ord("'"): None}).split())


def _line_of_image(image: str, dockerfile: Dockerfile) -> int | None:
    """The FROM, or the COPY --from, that names an image; BuildKit shows it in full: docker.io/library/python:3.11."""
    bases = [(stage.base.text or "", stage.line_number) for stage in dockerfile.stages]
    copies = [(copy.instruction.flag("from") or "", copy.instruction.line_number) for copy in dockerfile.copies]
    return next((line for name, line in (*bases, *copies) if name and _is_same_image(name, image)), None)


def _is_same_image(written: str, shown: str) -> bool:
    starts, ends = ("", "docker.io/", "docker.io/library/"), ("", ":latest")
    return any(f"{start}{written}{end}" == shown for start in starts for end in ends)


# ---------------------------------------------------------------------------------------------------------
# The reason
# ---------------------------------------------------------------------------------------------------------


def _reason_in(lines: Sequence[str]) -> str:
    said = [line for line in lines if line.strip()]
    return next((line for line in reversed(said) if _ERROR_LINE.match(line)), said[-1] if said else "it says nothing")


def _in_short(reason: str) -> str:
    """The engine's words without the wrapping, and without the command, which the step shows."""
    bare = _WRAPPING.sub("", " ".join(reason.split()))
    match = _EXIT_CODE.fullmatch(bare)
    return f"it ended with exit code {match[1]}" if match else bare
