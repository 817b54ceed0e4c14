"""Job definitions as XML: the format of the original, read without entities, DTD or network."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from lxml import etree

from DmpWorkflow.core import retries
from DmpWorkflow.core.job_definition import File, JobDefinition, Variable
from DmpWorkflow.utils.errors import InvalidInput

LARGEST = 1024 * 1024  # bytes of one file
MOST_ELEMENTS = 10_000  # in one file; checking costs more than in proportion
MOST_JOBS = 1000  # in one file
MOST_PROBLEMS = 50  # that are told at once
LONGEST_PROBLEM = 300  # characters of one


@dataclass(frozen=True)
class Problem:
    """What is wrong, and in which line of the file; None: nowhere in it."""

    text: str
    line: int | None = None

    def __str__(self) -> str:
        return self.text if self.line is None else f"line {self.line}: {self.text}"


class InvalidJobDefinition(InvalidInput):
    """The XML does not define a job; each of the ``problems`` names line, element and what was expected."""

    def __init__(self, *problems: Problem) -> None:
        shown = problems[:MOST_PROBLEMS]
        if more := len(problems) - len(shown):
            shown += (Problem(f"and {more} more of the kind"),)
        super().__init__("; ".join(map(str, shown)))
        self.problems = shown


@dataclass
class _Findings:
    """What comes to light while a file is read."""

    problems: list[Problem]
    warnings: list[str]

    def refuse(self, element: etree._Element, text: str) -> None:
        self.problems.append(Problem(f"element {str(element.tag)!r}: {text}", element.sourceline))

    def ignore(self, element: etree._Element, text: str) -> None:
        self.warnings.append(f"line {element.sourceline}: {text} is ignored")


def schema_text() -> bytes:
    """Return the XML schema that every file is checked against."""
    return files("DmpWorkflow.core").joinpath("job.xsd").read_bytes()


@cache
def _schema() -> etree.XMLSchema:
    return etree.XMLSchema(etree.fromstring(schema_text(), _parser()))


def _parser() -> etree.XMLParser:
    return etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False,
        remove_comments=True, remove_pis=True,
    )  # fmt: skip


def parse_jobs(data: bytes) -> tuple[list[JobDefinition], list[str]]:
    """Return the jobs of a file, and warnings about what was ignored.

    Raises InvalidJobDefinition with every problem that can be told at once.
    """
    root = _read(data)
    findings = _Findings([], [])
    jobs = [_job(element, findings) for element in root]
    if len(jobs) > 1:
        _check_names(root, jobs, findings)
    if findings.problems:
        raise InvalidJobDefinition(*findings.problems)
    return jobs, findings.warnings


def _read(data: bytes) -> etree._Element:
    if len(data) > LARGEST:
        raise InvalidJobDefinition(Problem(f"the XML has {len(data)} bytes: at most {LARGEST} are read"))
    parser = _parser()
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise InvalidJobDefinition(*_syntax_problems(parser, error)) from error
    if root.getroottree().docinfo.doctype:
        raise InvalidJobDefinition(Problem("a DOCTYPE is not read: remove it, entities have no use here", 1))
    _check_size(root)
    schema = _schema()
    if not schema.validate(root):
        raise InvalidJobDefinition(*(Problem(_one_line(entry.message), entry.line) for entry in schema.error_log))
    return root


def _check_size(root: etree._Element) -> None:
    jobs, elements = len(root), sum(1 for _ in root.iter())
    if elements > MOST_ELEMENTS:
        raise InvalidJobDefinition(Problem(f"the XML has {elements} elements: at most {MOST_ELEMENTS} are read"))
    if jobs > MOST_JOBS:
        raise InvalidJobDefinition(Problem(f"the XML has {jobs} jobs: at most {MOST_JOBS} are read, split the file"))


def _syntax_problems(parser: etree.XMLParser, error: Exception) -> Iterator[Problem]:
    """Return what the parser stumbled over; its own log, since that of the error has earlier files' as well."""
    entries = [(entry.message, entry.line) for entry in parser.error_log] or [(str(error), 1)]
    for text, line in entries:
        yield Problem(f"no well-formed XML: {_one_line(text)}", line or 1)


def _one_line(error: object) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= LONGEST_PROBLEM else f"{text[:LONGEST_PROBLEM]} ..."


def _check_names(root: etree._Element, jobs: Sequence[JobDefinition], findings: _Findings) -> None:
    seen: set[tuple[str, str, str]] = set()
    for element, job in zip(root, jobs, strict=True):
        key = (job.name, job.type, job.site)
        if not job.name:
            findings.refuse(element, "several jobs in a file each need a name")
        elif key in seen:
            findings.refuse(element, f"the name {job.name!r} is used twice")
        seen.add(key)


def _job(element: etree._Element, findings: _Findings) -> JobDefinition:
    wrapper = element.find("JobWrapper")
    assert wrapper is not None, "the schema requires it"  # noqa: S101 - for the type checker
    return JobDefinition(
        executable=wrapper.get("executable", ""),
        script=_script(wrapper.text or ""),
        input_files=_files(element, "InputFiles", findings),
        output_files=_files(element, "OutputFiles", findings),
        variables=_variables(element, findings),
        release=element.get("release", ""),
        type=element.get("type", ""),
        name=element.get("name", ""),
        site=element.get("site", ""),
        priority=int(float(element.get("priority", "0"))),  # of 32 bits, but with any number of zeros in front
        retries=int(float(element.get("retries", "0"))),
        retry_on=_retry_on(element, findings),
        lost_after=element.get("lost-after", ""),
        line=element.sourceline or 0,
    )


def _retry_on(element: etree._Element, findings: _Findings) -> str:
    try:
        return ",".join(retries.words_of(element.get("retry-on", "")))
    except InvalidInput as error:
        findings.refuse(element, str(error))
        return ""


def _script(text: str) -> str:
    """Return the script without the white space between its CDATA section and the closing tag."""
    ended = text.rstrip(" \t\n\r")
    return f"{ended}\n" if ended else ""


def _files(job: etree._Element, section: str, findings: _Findings) -> tuple[File, ...]:
    found = []
    for element in job.iterfind(f"{section}/File"):
        file = File(element.get("source", ""), element.get("target", ""), element.get("file_type", ""))
        if file.source and file.target:
            found.append(file)
        elif file.source or file.target:
            missing = "target" if file.source else "source"
            findings.refuse(element, f"{missing} is empty, a path was expected")
        else:
            findings.ignore(element, f"an empty File in {section}")
    return tuple(found)


def _variables(job: etree._Element, findings: _Findings) -> tuple[Variable, ...]:
    found: dict[str, Variable] = {}
    for element in job.iterfind("MetaData/Var"):
        name = element.get("name", "")
        if not name:
            findings.ignore(element, "a Var without a name")
        elif name in found:
            findings.refuse(element, f"{name!r} is set twice")
        else:
            found[name] = Variable(name, element.get("value", ""), element.get("var_type", "string"))
    return tuple(found.values())


def serialise_jobs(jobs: Sequence[JobDefinition]) -> bytes:
    """Return the XML of jobs; parsing it gives the same jobs. InvalidJobDefinition: XML cannot hold the text."""
    root = etree.Element("Jobs")
    for job in jobs:
        try:
            _append_job(root, job)
        except ValueError as error:
            told = f"job {job.name!r}: XML cannot hold this text: {_one_line(error)}"
            raise InvalidJobDefinition(Problem(told)) from error
    return etree.tostring(root, encoding="UTF-8", xml_declaration=True)


def readable_xml(job: JobDefinition) -> str:
    """Return the XML of one job as people edit it; parsing it gives the same job."""
    root = etree.fromstring(serialise_jobs([job]), _parser())
    wrapper = root.find("Job/JobWrapper")
    if wrapper is not None and wrapper.text and not any(mark in wrapper.text for mark in ("]]>", "\r")):
        wrapper.text = etree.CDATA(wrapper.text)
    for section in root.findall("Job/*"):
        if section.tag != "JobWrapper" and not len(section):
            root[0].remove(section)
    etree.indent(root, space="  ")
    return etree.tostring(root, encoding="unicode") + "\n"


def _append_job(root: etree._Element, job: JobDefinition) -> None:
    given = {"release": job.release, "type": job.type, "name": job.name, "site": job.site}
    attributes = {name: value for name, value in given.items() if value}
    if job.priority:
        attributes["priority"] = str(job.priority)
    if job.retries:
        attributes["retries"] = str(job.retries)
    steering = {"retry-on": job.retry_on, "lost-after": job.lost_after}
    attributes |= {name: value for name, value in steering.items() if value}
    element = etree.SubElement(root, "Job", attributes)
    for section, stored in (("InputFiles", job.input_files), ("OutputFiles", job.output_files)):
        folder = etree.SubElement(element, section)
        for file in stored:
            etree.SubElement(folder, "File", vars(file))
    # Escaped text and not CDATA: it holds every character, also "]]>" and a carriage return.
    etree.SubElement(element, "JobWrapper", executable=job.executable).text = job.script
    metadata = etree.SubElement(element, "MetaData")
    for variable in job.variables:
        etree.SubElement(metadata, "Var", vars(variable))
