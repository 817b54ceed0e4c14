"""The log of a program: what others wrote cannot break a line, nor pretend to be one."""

import logging

from DmpWorkflow.utils.text import one_line

INDENT = "    "


class OneLine(logging.Formatter):
    """Writes each message as one line; of a trace each line is indented, whatever its error says."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))

    def formatException(self, ei: "logging._SysExcInfoType") -> str:
        lines = super().formatException(ei).split("\n")
        return "\n".join(INDENT + one_line(line) for line in lines)


def set_up(words: str, level: int) -> None:
    """Write the log to stderr, each line as ``words`` say."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine(words))
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("pymongo").setLevel(logging.INFO)  # below that it writes down what is stored, keys and all
