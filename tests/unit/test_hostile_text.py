"""What comes in as text and is meant to hurt: it is refused in one line, before it costs much."""

import json
import time

import pytest

from DmpWorkflow.core import job_xml, literals, overrides, variables
from DmpWorkflow.core.batch_needs import LONGEST_WORD, BatchNeeds, apply_overrides
from DmpWorkflow.core.job_definition import Variable
from DmpWorkflow.core.job_xml import InvalidJobDefinition, parse_jobs
from DmpWorkflow.frontend.cli.common import Context, errors_as_one_line
from DmpWorkflow.frontend.pages.addresses import is_ours, path_of
from DmpWorkflow.frontend.pages.forms import number_list
from DmpWorkflow.frontend.pages.submit import ENCODING
from DmpWorkflow.utils.errors import InvalidInput
from DmpWorkflow.utils.exports import csv_lines, json_lines
from DmpWorkflow.utils.text import LONGEST_LINE, one_line, readable_json
from DmpWorkflow.utils.units import parse_clock, parse_memory

SECRET = "planted in a file that no job may read"
WRAPPER = b'<JobWrapper executable="b">x</JobWrapper>'


def jobs(inside: bytes, doctype: bytes = b"") -> bytes:
    return doctype + b"<Jobs><Job>" + inside + WRAPPER + b"</Job></Jobs>"


LAUGHS = b"".join(b'<!ENTITY l%d "%s">' % (level, b"&l%d;" % (level - 1) * 10) for level in range(1, 10))
FILE = b"<InputFiles>%s</InputFiles>"


@pytest.mark.parametrize(
    "hostile",
    [
        jobs(
            b'<MetaData><Var name="A" value="&l9;"/></MetaData>', b'<!DOCTYPE a [<!ENTITY l0 "ha">' + LAUGHS + b"]>"
        ),
        jobs(FILE % (b"&a;" * 100_000), b'<!DOCTYPE a [<!ENTITY a "' + b"a" * 400_000 + b'">]>'),
        jobs(b"", b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/evil.dtd">'),
        jobs(b"", b'<!DOCTYPE a [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]>'),
        b"<a>" * 300_000,
        b"<Jobs>" + b"<Job>" * 150_000,
        jobs(FILE % (b"<File/>" * 140_000)),  # two problems each: a minute, and 20 MB of messages
        jobs(b'<MetaData><Var name="' + b"a" * 900_000 + b'-" value=""/></MetaData>'),
        b'<Jobs><Job name="a&#0;b">' + WRAPPER + b"</Job></Jobs>",
        b'<Jobs><Job name="a&#xd800;b">' + WRAPPER + b"</Job></Jobs>",
        b'<Jobs><Job priority="' + b"9" * 900_000 + b'">' + WRAPPER + b"</Job></Jobs>",
        b"<Jobs><Job " + b" ".join(b'a%d=""' % number for number in range(5000)) + b">" + WRAPPER + b"</Job></Jobs>",
        b"",
        b"\0" * 1000,
    ],
    ids=range(14),
)
def test_hostile_xml_is_refused_in_a_few_words(hostile: bytes) -> None:
    with pytest.raises(InvalidJobDefinition) as refused:
        parse_jobs(hostile)
    assert len(str(refused.value)) < LONGEST_LINE
    assert len(refused.value.problems) <= job_xml.MOST_PROBLEMS + 1


def test_no_file_is_read_by_xml(tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("secret") / "secret"
    secret.write_text(SECRET)
    address = b"file://" + str(secret).encode()
    for hostile in (
        b'<!DOCTYPE a [<!ENTITY s SYSTEM "%s">]><Jobs><Job><JobWrapper executable="b">&s;</JobWrapper></Job></Jobs>',
        b'<Jobs><Job><JobWrapper executable="b"><xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="%s" '
        b'parse="text"/></JobWrapper></Job></Jobs>',
    ):
        with pytest.raises(InvalidJobDefinition) as refused:
            parse_jobs(hostile % address)
        assert SECRET not in str(refused.value)


def test_a_number_may_have_zeros_in_front() -> None:
    zeros = b'<Jobs><Job priority="-' + b"0" * 5000 + b'7">' + WRAPPER + b"</Job></Jobs>"
    assert parse_jobs(zeros)[0][0].priority == -7


@pytest.mark.parametrize(
    "layers",
    [
        [{"A": "x" * 65_000, "B": "$A" * 3000}],  # 200 MB; far more would do
        [{"A": "x" * 1000}, *[{"A": "$A" * 40}] * 3],  # 64 MB, and 40 times more with each layer
        [{f"A{number}": "x" * 60_000 for number in range(20)}],
        [{"A": "x" * 60_000, **{f"B{number}": "$A" for number in range(20)}}],
        [
            {f"A{number}": "x" * 60 for number in range(100)},
            {f"A{number}": f"$A{number}" * 1000 for number in range(100)},
        ],
    ],
    ids=["one", "layers", "plain", "together", "inherited"],
)
def test_variables_that_explode_are_refused_before_they_take_the_memory(layers: list[dict[str, str]]) -> None:
    with pytest.raises(variables.GrowsTooLong, match="grow"):
        variables.resolve([[Variable(name, value) for name, value in layer.items()] for layer in layers])


def test_texts_that_explode_are_refused_before_they_take_the_memory() -> None:
    with pytest.raises(variables.GrowsTooLong, match="grows beyond"):
        variables.expand("$A" * 5000, {"A": "x" * 60_000})


@pytest.mark.parametrize("text", ["9" * 5000 + ":00", "1" * 7 + ":00", "٣:٠٣", "1:00\n:00"])
def test_no_time_is_without_bounds(text: str) -> None:
    with pytest.raises(InvalidInput, match="is no time"):
        parse_clock(text)


@pytest.mark.parametrize("text", ["9" * 400, "9" * 16 + "T", "1e999", "٤", "inf", "nan"])
def test_no_amount_of_memory_is_without_bounds(text: str) -> None:
    with pytest.raises(InvalidInput, match="is no amount"):
        parse_memory(text)


@pytest.mark.parametrize("value", ["a\nb", "a\0b", "\x1b[2J", "a" * (LONGEST_WORD + 1)])
def test_words_for_the_batch_system_are_one_line_and_bounded(value: str) -> None:
    """A list of arguments has a limit: beyond it nothing of the site could be submitted any more."""
    with pytest.raises(InvalidInput, match="BATCH_OVERRIDE_EXTRA"):
        apply_overrides(BatchNeeds(memory_mb=1, cpu_seconds=1), {"BATCH_OVERRIDE_EXTRA": value})


LITERALS = {
    "minus": "-" * 60_000 + "1",
    "not": "not " * 15_000 + "1",
    "sum": "1" + "+1" * 30_000,
    "calls": "a" + "()" * 30_000,
    "subscripts": "a" + "[0]" * 20_000,
    "conditions": "1 if 1 else " * 5000 + "1",
    "powers": "2**" * 20_000 + "1",
    "f-strings": "f'{1}'" * 9000,
    "brackets": "{'a':" * 9000,
    "multiplied": "{'a': 'a' * 10**9}",
    "called": "{'a': __import__('os').getcwd()}",
    "long": "{}" + " " * literals.LONGEST_LITERAL,
    "unhashable": "{[]: 1}",
    "number": "[1]",
    "NUL": "{'a': \0}",
}


@pytest.mark.parametrize("literal", LITERALS.values(), ids=LITERALS)
def test_literals_that_explode_are_refused(literal: str) -> None:
    with pytest.raises(InvalidInput, match=r"^args: .{1,80}$"):
        literals.dictionary(literal, "args")


def test_brackets_within_texts_are_no_nesting() -> None:
    """A log with brackets that are not closed must not cost its report."""
    report = {"log": "(" * 50 + "it's [[[[\\"}
    assert literals.dictionary(json.dumps(report), "args") == report
    assert literals.dictionary(str(report), "args") == report


@pytest.mark.parametrize("text", ['"\\' * 30_000, '"' * 60_000, "\"'" * 30_000, "'a" * 30_000 + "{" * 30])
def test_quotes_that_are_not_closed_are_read_once(text: str) -> None:
    began = time.process_time()
    with pytest.raises(InvalidInput):
        literals.dictionary(text, "args")
    assert time.process_time() - began < 10  # of CPU: a pattern that looks again and again takes 20 s


@pytest.mark.parametrize(
    "value", ["a\0", "\ud800", 16**6000, None, [], {}, b"a", {1}, 1j], ids=lambda value: str(type(value))
)
def test_what_no_environment_can_hold_is_no_value(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"^override_dict: 'value'"):
        overrides.from_mapping({"MetaData": [{"name": "A", "value": value}]})


@pytest.mark.parametrize("name", ["a b", "A=B", "a\n", "1a", "a-b", "LD_PRELOAD\0", "é", 5])
def test_overrides_have_names_that_a_shell_can_export(name: object) -> None:
    with pytest.raises(InvalidInput, match=r"expected a name|no plain text"):
        overrides.from_mapping({"MetaData": [{"name": name, "value": "1"}]})


def test_overrides_without_a_name_are_left_out_as_in_the_xml() -> None:
    assert overrides.from_mapping({"MetaData": [{"name": "", "value": ""}]}) == overrides.Overrides()


@pytest.mark.parametrize("text", ["0-" + "9" * 25, "1-" + "9" * 5000, "9" * 19, "0-99999999999", "-1", "1-2-3", "٣"])
def test_lists_of_numbers_are_bounded(text: str) -> None:
    with pytest.raises(ValueError, match=r"no number|more than"):
        number_list(text)


def test_blanks_in_front_of_xml_are_read_once() -> None:
    began = time.process_time()
    for hostile in ("<?xml" + " " * 200_000, " " * 200_000 + "<?xml", "<?xml encoding" + " " * 200_000):
        assert ENCODING.sub("", hostile) == hostile
    assert time.process_time() - began < 20  # of CPU: it took minutes, and hours of what a form may hold
    assert ENCODING.sub(r"\1", '<?xml version="1.0" encoding="latin1"?><Jobs/>') == '<?xml version="1.0"?><Jobs/>'


@pytest.mark.parametrize(
    "address",
    ["", "jobs", "//evil.example", "/\\evil.example", "https://evil.example/", "/a\\b", "/a\r\nb", "/\tevil", "//["],
)
def test_only_paths_of_this_server_lead_on(address: str) -> None:
    assert not is_ours(address)
    assert is_ours("/jobs/?sort=title#a")


def test_addresses_of_browsers_are_read_with_care() -> None:
    assert path_of("http://server:5000/jobs/?text=a") == "/jobs/?text=a"
    for hostile in ("http://[", "http://a//evil.example/x", "javascript:alert(1)", "http://\u2100.example/", "\0"):
        assert path_of(hostile) == ""


@pytest.mark.parametrize("begin", [*"=+-@\t\n", "\r", "＝", "＋", "－", "＠"])
def test_no_cell_of_a_csv_file_is_a_formula(begin: str) -> None:
    (text,) = csv_lines(["a"], [{"a": f"{begin}cmd|' /C calc'!A0"}])
    cell = text.splitlines()[1].lstrip('"')
    assert cell[0] in "'␍"


def test_exports_and_json_show_no_control_characters() -> None:
    row = {"a": "\x1b[2J \x9b1m \u202e ü \U0001f600 \n", "b": [1, None]}
    for text in ("".join(json_lines([row])), readable_json([row])):
        assert json.loads(text) == [row]
        assert all(letter == "\n" or letter.isprintable() for letter in text)
        assert "ü \U0001f600" in text


def test_messages_are_one_line() -> None:
    assert one_line("a\r\nb\x1b[31m\u2028c\x85d\u202e") == "a␍␊b␛[31m�c�d�"
    assert len(one_line("x" * 1_000_000)) < LONGEST_LINE + 10


HOSTILE = "\x1b]0;title\x07 \x1b[2J \x9b31m \u202e"


def test_a_terminal_gets_no_commands_from_others(capsys: pytest.CaptureFixture[str]) -> None:
    context = Context(None, False, 0)
    context.say(f"Submitted {HOSTILE}")
    context.table(["host"], [[f"{HOSTILE}\tcolumn\nrow"]])
    Context(None, True, 0).give([{"log": HOSTILE}])
    with pytest.raises(SystemExit), errors_as_one_line(context):
        raise InvalidInput(f"no job {HOSTILE}")
    for text in capsys.readouterr():
        assert text and all(letter in "\n\t" or letter.isprintable() for letter in text)
        assert "column␊row" in text or "error: no job" in text
