"""`tusi chat`: a conversation at the terminal."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from pathlib import Path

from tusi.backends.protocol import Backend
from tusi.chat.messages import ImagePart, VideoPart
from tusi.cli import options
from tusi.cli.answering import answer, append_trace, check_trace_file, remarks, summary
from tusi.cli.conversation import Conversation, describe, split_line
from tusi.cli.session import AnswerOptions, ModelOptions, make_request, media_kwargs, opened_backend
from tusi.cli.tools import ToolChoice
from tusi.cli.writer import AnswerWriter
from tusi.core.errors import EngineError, TusiError
from tusi.processing.limits import MediaLimits

HELP = """\
  /image PATH or URL   attach a picture to the next question; a path in a line does the same
  /video PATH or URL   attach a video
  /system TEXT         set the system prompt; without TEXT: remove it
  /reset               forget the conversation
  /save FILE.json      write the conversation as JSON
  /help                this list
  /exit                leave; so does Ctrl-D
A line that ends in \\ goes on; a text between two lines of \"\"\" may have any number of lines.
Ctrl-C stops the answer, not the program."""
COMMANDS = ("/image", "/video", "/system", "/reset", "/save", "/help", "/exit", "/quit")
QUOTES = '"""'


def chat(
    model: options.Model = None,
    dtype: options.Dtype = "auto",
    kv_cache_dtype: options.KVCacheDtype = "auto",
    weight_memory: options.WeightMemory = None,
    activations: options.Activations = None,
    max_model_len: options.MaxModelLen = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    seed: options.Seed = None,
    thinking: options.Thinking = None,
    thinking_budget: options.ThinkingBudget = None,
    thoughts: options.Thoughts = True,
    system: options.System = None,
    fps: options.Fps = None,
    max_frames: options.MaxFrames = None,
    max_pixels: options.MaxPixels = None,
    tools: options.Tools = None,
    index: options.Index = None,
    image_search_url: options.ImageSearchUrl = None,
    mcp: options.Mcp = None,
    trace: options.TraceFile = None,
    allow_private_addresses: options.AllowPrivate = False,
) -> None:
    """Talk about pictures and videos, turn by turn.

    Type a question; put paths of pictures and videos into it, or attach them with /image and /video. /help lists what
    else there is. Ctrl-C stops an answer, Ctrl-D leaves.
    """
    limits = MediaLimits(allow_private_addresses=allow_private_addresses)
    choice = ToolChoice.of(tools, limits, index=index, image_search_url=image_search_url, mcp=mcp)
    if trace is not None:
        check_trace_file(trace)
    answer_options = AnswerOptions(
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        thinking=thinking,
        thinking_budget=thinking_budget,
        mm_processor_kwargs=media_kwargs(fps, max_frames, max_pixels),
        show_thoughts=thoughts,
    )
    model_options = ModelOptions(
        model=model, dtype=dtype, kv_cache_dtype=kv_cache_dtype, weight_memory=weight_memory, activations=activations,
        max_model_len=max_model_len, allow_private_addresses=allow_private_addresses,
    )  # fmt: skip
    with choice, opened_backend(model_options) as backend:
        conversation = Conversation(system=system)
        ChatLoop(
            backend, answer_options, read_line=_line_reader(), conversation=conversation, tools=choice, trace=trace
        ).run()


def _line_reader() -> Callable[[str], str]:
    """input() with history and editing where there is a keyboard; bare lines where there is not."""
    if not sys.stdin.isatty():
        return lambda _prompt: input()
    import readline  # noqa: F401 - importing it is what gives input() its editing

    return input


class ChatLoop:
    """Reads lines, runs commands, asks the backend. read_line: takes a prompt, raises EOFError at the end.

    tools None: those that --tools chooses when it is not given. trace: where each question's run is appended.
    """

    def __init__(
        self,
        backend: Backend,
        answer_options: AnswerOptions,
        *,
        read_line: Callable[[str], str],
        conversation: Conversation | None = None,
        tools: ToolChoice | None = None,
        trace: Path | None = None,
    ) -> None:
        self.conversation = conversation or Conversation()
        self._backend = backend
        self._options = answer_options
        self._read_line = read_line
        self._tools = tools or ToolChoice.of(None, MediaLimits())
        self._trace = trace

    def run(self) -> None:
        """Until the user leaves. Raises EngineError if the model died."""
        if sys.stdin.isatty():
            self._say(f"{self._backend.model}. /help lists the commands, Ctrl-D leaves.")
        while True:
            try:
                line = self._read_message()
            except EOFError:
                return
            except KeyboardInterrupt:
                self._say("\n(Ctrl-D or /exit leaves)")
                continue
            if line.strip() in ("/exit", "/quit"):
                return
            try:
                self._handle(line)
            except EngineError:
                raise
            except TusiError as error:
                self._say(f"tusi: {error}")

    def _read_message(self) -> str:
        """One line, or several that belong together."""
        line = self._read_line("> ")
        if line.strip() == QUOTES:
            lines = []
            while (line := self._read_line(". ")).strip() != QUOTES:
                lines.append(line)
            return "\n".join(lines)
        lines = [line]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(self._read_line(". "))
        return "\n".join(lines)

    def _handle(self, line: str) -> None:
        media, text, missing = split_line(line)
        if text.startswith("/") and not line.lstrip().startswith(('"', "'")):
            self._command(line.strip())
            return
        self.conversation.attached += media
        for word in missing:
            self._say(f"(there is no file {word!r}; it is sent as text)")
        if text:
            self._ask(text)
        elif media:
            self._say(f"Attached: {describe(self.conversation.attached)}. Now ask.")

    def _command(self, line: str) -> None:
        name, _, argument = line.partition(" ")
        argument = argument.strip().strip("'\"")
        if name == "/image":
            self.conversation.attach(argument, ImagePart)
            self._say(f"Attached: {describe(self.conversation.attached)}.")
        elif name == "/video":
            self.conversation.attach(argument, VideoPart)
            self._say(f"Attached: {describe(self.conversation.attached)}.")
        elif name == "/system":
            self.conversation.system = argument or None
            self._say("System prompt set." if argument else "System prompt removed.")
        elif name == "/reset":
            self.conversation.reset()
            self._say("Forgotten.")
        elif name == "/save":
            path = Path(argument or "chat.json").expanduser()
            self.conversation.save(path, self._backend.model)
            self._say(f"Saved: {path}")
        elif name == "/help":
            self._say(HELP)
        else:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            self._say(f"There is no command {name}. " + (f"Did you mean {near[0]}?" if near else "/help lists them."))

    def _ask(self, text: str) -> None:
        messages = self.conversation.ask(text)
        writer = AnswerWriter(show_thoughts=self._options.show_thoughts)
        try:
            request = make_request(self._backend, messages, self._options)
            tools = self._tools.tools(self._backend, messages, request.mm_processor_kwargs)
            result = answer(self._backend, request, tools, show=writer)
        except KeyboardInterrupt:
            self._keep_what_came(writer)
            return
        except TusiError:
            self.conversation.take_back()
            raise
        self.conversation.add_run(result.trace)
        if self._trace is not None:
            append_trace(result.trace, self._trace)
        for line in remarks(result):
            self._say(line)
        if sys.stderr.isatty():
            self._say(summary(result))

    def _keep_what_came(self, writer: AnswerWriter) -> None:
        if writer.content:
            self.conversation.add_answer(writer.content, writer.reasoning)
            self._say("\n(stopped; the part of the answer that came is kept)")
        else:
            self.conversation.take_back()
            self._say("\n(stopped before an answer; the question is taken back, its pictures stay attached)")

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr)
