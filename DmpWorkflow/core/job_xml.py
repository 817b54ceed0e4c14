"""Job definitions as XML: the format of the original, read without entities, DTD or network."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from lxml import etree

from DmpWorkflow.core.job_definition import File, JobDefinition, Variable
from DmpWorkflow.utils.errors import InvalidInput

LARGEST = 1024 * 1024  # bytes of one file


class InvalidJobDefinition(InvalidInput):
    """The XML does not define a job; the message names line, element and what was expected."""


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
    """Return the jobs of a file, and warnings about what was ignored. Raises InvalidJobDefinition."""
    root = _read(data)
    warnings: list[str] = []
    jobs = [_job(element, warnings) for element in root]
    if len(jobs) > 1:
        _check_names(root, jobs)
    return jobs, warnings


def _read(data: bytes) -> etree._Element:
    if len(data) > LARGEST:
        raise InvalidJobDefinition(f"the XML has {len(data)} bytes: at most {LARGEST} are read")
    try:
        root = etree.fromstring(data, _parser())
    except (etree.XMLSyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise InvalidJobDefinition(f"line {line}: no well-formed XML: {_one_line(error)}") from error
    if root.getroottree().docinfo.doctype:
        raise InvalidJobDefinition("line 1: a DOCTYPE is not read: remove it, entities have no use here")
    schema = _schema()
    if not schema.validate(root):
        raise InvalidJobDefinition("; ".join(_explain(entry) for entry in schema.error_log))
    return root


def _explain(entry: "etree._LogEntry") -> str:
    return f"line {entry.line}: {_one_line(entry.message)}"


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def _check_names(root: etree._Element, jobs: Sequence[JobDefinition]) -> None:
    seen: set[tuple[str, str, str]] = set()
    for element, job in zip(root, jobs, strict=True):
        if not job.name:
            raise InvalidJobDefinition(
                f"line {element.sourceline}: element 'Job': several jobs in a file each need a name"
            )
        key = (job.name, job.type, job.site)
        if key in seen:
            raise InvalidJobDefinition(
                f"line {element.sourceline}: element 'Job': the name {job.name!r} is used twice"
            )
        seen.add(key)


def _job(element: etree._Element, warnings: list[str]) -> JobDefinition:
    wrapper = element.find("JobWrapper")
    assert wrapper is not None, "the schema requires it"  # noqa: S101 - for the type checker
    return JobDefinition(
        executable=wrapper.get("executable", ""),
        script=_script(wrapper.text or ""),
        input_files=_files(element, "InputFiles", warnings),
        output_files=_files(element, "OutputFiles", warnings),
        variables=_variables(element, warnings),
        release=element.get("release", ""),
        type=element.get("type", ""),
        name=element.get("name", ""),
        site=element.get("site", ""),
        priority=int(element.get("priority", "0")),
    )


def _script(text: str) -> str:
    """Return the script without the white space between its CDATA section and the closing tag."""
    ended = text.rstrip(" \t\n\r")
    return f"{ended}\n" if ended else ""


def _files(job: etree._Element, section: str, warnings: list[str]) -> tuple[File, ...]:
    found = []
    for element in job.iterfind(f"{section}/File"):
        file = File(element.get("source", ""), element.get("target", ""), element.get("file_type", ""))
        if file.source and file.target:
            found.append(file)
        elif file.source or file.target:
            missing = "target" if file.source else "source"
            raise InvalidJobDefinition(
                f"line {element.sourceline}: element 'File': {missing} is empty, a path was expected"
            )
        else:
            warnings.append(f"line {element.sourceline}: an empty File in {section} is ignored")
    return tuple(found)


def _variables(job: etree._Element, warnings: list[str]) -> tuple[Variable, ...]:
    found: dict[str, Variable] = {}
    for element in job.iterfind("MetaData/Var"):
        name = element.get("name", "")
        if not name:
            warnings.append(f"line {element.sourceline}: a Var without a name is ignored")
            continue
        if name in found:
            raise InvalidJobDefinition(f"line {element.sourceline}: element 'Var': {name!r} is set twice")
        found[name] = Variable(name, element.get("value", ""), element.get("var_type", "string"))
    return tuple(found.values())


def serialise_jobs(jobs: Sequence[JobDefinition]) -> bytes:
    """Return the XML of jobs; parsing it gives the same jobs. InvalidJobDefinition: XML cannot hold the text."""
    root = etree.Element("Jobs")
    for job in jobs:
        try:
            _append_job(root, job)
        except ValueError as error:
            raise InvalidJobDefinition(f"job {job.name!r}: XML cannot hold this text: {_one_line(error)}") from error
    return etree.tostring(root, encoding="UTF-8", xml_declaration=True)


def _append_job(root: etree._Element, job: JobDefinition) -> None:
    given = {"release": job.release, "type": job.type, "name": job.name, "site": job.site}
    attributes = {name: value for name, value in given.items() if value}
    if job.priority:
        attributes["priority"] = str(job.priority)
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
