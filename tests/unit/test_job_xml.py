import pytest
from hypothesis import given
from hypothesis import strategies as st

from DmpWorkflow.core.job_definition import File, JobDefinition, Variable
from DmpWorkflow.core.job_xml import (
    LARGEST,
    InvalidJobDefinition,
    parse_jobs,
    readable_xml,
    schema_text,
    serialise_jobs,
)

README_EXAMPLE = b"""<Jobs>
	<Job>
		<InputFiles>
			<File source="" target="" file_type="" />
		</InputFiles>
		<OutputFiles>
			<File source="" target="" file_type="" />
		</OutputFiles>
			<JobWrapper executable="/bin/bash"><![CDATA[
#/bin/bash
echo hostname
]]>		
			</JobWrapper>
		<MetaData>
			<Var name="" value="" var_type="string"/>
		</MetaData>
	</Job>
</Jobs>
"""  # noqa: W291 - verbatim


def test_the_readmes_example_with_its_empty_elements() -> None:
    (job,), warnings = parse_jobs(README_EXAMPLE)
    assert (job.executable, job.input_files, job.output_files, job.variables) == ("/bin/bash", (), (), ())
    assert job.script == "\n#/bin/bash\necho hostname\n"
    assert warnings == [
        "line 4: an empty File in InputFiles is ignored",
        "line 7: an empty File in OutputFiles is ignored",
        "line 15: a Var without a name is ignored",
    ]


def test_everything_a_job_can_say() -> None:
    text = b"""<Jobs><Job release="5-1-2" type="User" name="n" site="CNAF" priority="-3">
      <MetaData><Var name="A" value="$B" var_type="str"/></MetaData>
      <JobWrapper executable="bash">echo &lt;hi&gt;</JobWrapper>
      <OutputFiles><File source="o" target="${A}/o" file_type="root"/></OutputFiles>
    </Job></Jobs>"""
    assert parse_jobs(text) == (
        [
            JobDefinition(
                executable="bash",
                script="echo <hi>\n",
                output_files=(File("o", "${A}/o", "root"),),
                variables=(Variable("A", "$B", "str"),),
                release="5-1-2",
                type="User",
                name="n",
                site="CNAF",
                priority=-3,
            )
        ],
        [],
    )


def jobs_of(*parts: str) -> bytes:
    return "\n".join(["<Jobs>", *parts, "</Jobs>"]).encode()


WRAPPER = '<JobWrapper executable="bash">true</JobWrapper>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "line 1: no well-formed XML"),
        (b"<Jobs>\n<Job>\n</Jobs>", "line 3: no well-formed XML: .*Job line 2"),
        (b"<Work/>", "line 1: Element 'Work'"),
        (jobs_of("<Job/>"), "line 2: Element 'Job': Missing child element.*JobWrapper"),
        (jobs_of("<Job>", "<JobWrapper>x</JobWrapper></Job>"), "line 3: .*'executable' is required"),
        (jobs_of("<Job>", WRAPPER, "<Extra/></Job>"), "line 4: Element 'Extra'.*not expected"),
        (jobs_of(f'<Job prio="1">{WRAPPER}</Job>'), "line 2: .*attribute 'prio' is not allowed"),
        (jobs_of(f'<Job priority="high">{WRAPPER}</Job>'), "line 2: .*'high'"),
        (jobs_of(f'<Job>{WRAPPER}<MetaData><Var name="a b" value=""/></MetaData></Job>'), "line 2: .*'a b'"),
        (
            jobs_of(f'<Job>{WRAPPER}<MetaData><Var name="a" value=""/>', '<Var name="a" value=""/></MetaData></Job>'),
            "line 3: element 'Var': 'a' is set twice",
        ),
        (
            jobs_of(f'<Job>{WRAPPER}<InputFiles><File source="a" target=""/></InputFiles></Job>'),
            "line 2: element 'File': target is empty",
        ),
        (jobs_of(f'<Job name="a">{WRAPPER}</Job>', f"<Job>{WRAPPER}</Job>"), "line 3: .*each need a name"),
        (jobs_of(f'<Job name="a">{WRAPPER}</Job>', f'<Job name="a">{WRAPPER}</Job>'), "line 3: .*used twice"),
        (b"<Jobs>" + b" " * LARGEST + b"</Jobs>", "at most"),
    ],
)
def test_an_error_names_the_line_and_what_was_expected(text: bytes, message: str) -> None:
    with pytest.raises(InvalidJobDefinition, match=message) as caught:
        parse_jobs(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE Jobs [<!ENTITY a "b">]>',
        '<!DOCTYPE Jobs [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE Jobs SYSTEM "http://127.0.0.1:9/jobs.dtd">',
        "<!DOCTYPE Jobs>",
    ],
)
def test_no_entity_and_no_dtd_is_read(doctype: str) -> None:
    text = f'{doctype}<Jobs><Job><JobWrapper executable="bash">&a;</JobWrapper></Job></Jobs>'
    if "ENTITY" not in doctype:
        text = text.replace("&a;", "")
    with pytest.raises(InvalidJobDefinition, match="DOCTYPE is not read"):
        parse_jobs(text.encode())


def test_several_jobs_of_different_names() -> None:
    jobs, _ = parse_jobs(jobs_of(f'<Job name="a">{WRAPPER}</Job>', f'<Job name="b">{WRAPPER}</Job>'))
    assert [job.name for job in jobs] == ["a", "b"]


def test_what_xml_cannot_hold_is_refused() -> None:
    with pytest.raises(InvalidJobDefinition, match="XML cannot hold"):
        serialise_jobs([JobDefinition("bash", "a\0b")])


def test_the_schema_is_in_the_package() -> None:
    assert schema_text().startswith(b"<?xml")


letters = st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")
text = st.text(letters | st.sampled_from("\t\n\r&<>\"']"))
words = st.text(letters, min_size=1)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
definitions = st.builds(
    JobDefinition,
    executable=words,
    script=text.map(lambda script: script.rstrip(" \t\n\r")).map(lambda script: f"{script}\n" if script else ""),
    input_files=st.lists(st.builds(File, source=words, target=words, file_type=text)).map(tuple),
    output_files=st.lists(st.builds(File, source=words, target=words, file_type=text)).map(tuple),
    variables=st.lists(st.builds(Variable, name=names, value=text, var_type=text), unique_by=lambda v: v.name).map(
        tuple
    ),
    release=text,
    type=text,
    name=words,
    site=text,
    priority=st.integers(-(2**31), 2**31 - 1),
)


@given(st.lists(definitions, min_size=1, max_size=4, unique_by=lambda job: job.name))
def test_what_is_written_is_read_again(jobs: list[JobDefinition]) -> None:
    assert parse_jobs(serialise_jobs(jobs)) == (jobs, [])


def test_every_problem_is_told_with_its_line() -> None:
    text = jobs_of(
        "<Job><MetaData>", '<Var name="a" value=""/>', '<Var name="a" value=""/>', "</MetaData>", WRAPPER,
        '<InputFiles><File source="" target="x"/></InputFiles>', "</Job>", f'<Job name="b">{WRAPPER}</Job>',
    )  # fmt: skip
    for _ in range(2):  # what an earlier file had wrong is not told again
        with pytest.raises(InvalidJobDefinition) as caught:
            parse_jobs(text)
        assert [problem.line for problem in caught.value.problems] == [7, 4, 2]
        with pytest.raises(InvalidJobDefinition) as caught:
            parse_jobs(b"<Jobs>\n<Job a=b>\n</Jobs>")
        assert [problem.line for problem in caught.value.problems][:2] == [2, 2]
        assert "AttValue" in caught.value.problems[0].text


def test_readable_xml_defines_the_same_job() -> None:
    for script in ("\n#!/bin/bash\nif [ 1 -lt 2 ] && true; then echo '<a>'; fi\n", "echo ]]>\n", "a\r\nb\n", ""):
        job = JobDefinition("bash", script, output_files=(File("a", "b"),), variables=(Variable("A", "1"),), name="n")
        text = readable_xml(job)
        assert parse_jobs(text.encode())[0] == [job]
        assert ("<![CDATA[" in text) == (script.startswith("\n#!"))
        assert "InputFiles" not in text and '\n      <Var name="A"' in text
