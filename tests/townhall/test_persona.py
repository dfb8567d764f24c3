import pytest

from townhall.errors import PersonaError
from townhall.persona import Example, list_personas, load_persona
from townhall.yaml_file import MAX_BYTES

pytestmark = pytest.mark.slow

GOOD = "name: Ada\ndescription: Ada computes.\n"


def write(tmp_path, text, name="ada.yaml"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_personas_that_ship_are_whole():
    assert list_personas() == ["gary", "george", "lexie", "stacy"]
    for name in list_personas():
        persona = load_persona(name)
        assert persona.name.lower() == name and persona.user == "User"
        assert persona.description and persona.style and persona.greeting and len(persona.examples) >= 3


def test_stacy_is_who_she_always_was():
    stacy = load_persona("Stacy")
    assert "lil stacy" in stacy.description
    asked = {example.user: example.reply for example in stacy.examples}
    assert any("name" in question and "Stacy" in reply for question, reply in asked.items())
    assert any("French Revolution" in question and "1789" in reply for question, reply in asked.items())
    assert any("moon" in question and "The sun" in reply for question, reply in asked.items())


def test_a_persona_is_read_from_a_path(tmp_path):
    text = GOOD + "user: Charles\nstyle: Be brief.\nexamples:\n  - {user: Hi, reply: Hello.}\ngreeting: Yes?\nstop: ['\\n\\n']\n"
    ada = load_persona(write(tmp_path, text))
    assert ada.instructions == "Ada computes. Be brief."
    assert ada.examples == (Example("Hi", "Hello."),) and ada.user == "Charles" and ada.greeting == "Yes?"
    assert ada.stop == ("\\n\\n",)


def test_an_unknown_name_names_the_nearest_and_all():
    with pytest.raises(PersonaError, match="did you mean stacy.*gary, george, lexie, stacy"):
        load_persona("stacey")


@pytest.mark.parametrize(
    "text, fault",
    [
        ("name: Ada\ndescripton: x\n", "line 2: unknown key 'descripton'; did you mean 'description'"),
        ("name: Ada\ndescription: [a, b\n", "line 3: "),
        ("name: Ada\n", "line 1: a persona needs 'description'"),
        ("name: 7\ndescription: x\n", "line 1: 'name' must be text, not int"),
        ("name: Ada\ndescription:\n", "line 2: 'description' must be text, not NoneType"),
        ("name: Ada\ndescription: '  '\n", "line 2: 'description' is empty"),
        ("- a\n- b\n", "line 1: a persona must be a mapping"),
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        (GOOD + "examples: hello\n", "line 3: 'examples' must be a list"),
        (GOOD + "examples:\n  - user: Hi\n    reply: Ho\n  - user: Hi\n", "line 6: an example needs 'reply'"),
        (GOOD + "examples:\n  - user: Hi\n    replay: Ho\n", "line 5: unknown key 'replay'; did you mean 'reply'"),
        (GOOD + "stop: [a, 3]\n", "line 3: 'stop' must be text, not int"),
        (GOOD + "stop: ['']\n", "line 3: 'stop' holds an empty string"),
        (GOOD + "name: Eve\n", "line 3: 'name' is given twice"),
        ('name: "Ada:"\ndescription: x\n', "line 1: 'name' must be one line"),
        ('name: "A\\nB"\ndescription: x\n', "line 1: 'name' must be one line"),
        (GOOD + "user: ada\n", "line 3: 'ada' is the persona's own name"),
        (GOOD + "style: !!python/object/apply:os.system ['true']\n", "line 3: "),
        ("[" * 5000, "nested too deeply"),
        (b"name: Ada\ndescription: \xff\n", "line 2: not UTF-8"),
        ("name: Ada\ndescription: a\x00b\n", "line 2: it holds a control character"),
        ("name: 2001-99-99\ndescription: x\n", "put it in quotes"),
        (GOOD + "a: &a [x]\nb: *a\n", "line 3: unknown key 'a'"),
        ("a: b\n---\nc: d\n", "line 2: but found another document"),
        ("x" * (MAX_BYTES + 1), "larger than 64 KB"),
    ],
)
def test_a_broken_file_is_named_with_its_line_and_fault(tmp_path, text, fault):
    with pytest.raises(PersonaError, match=fault) as caught:
        load_persona(write(tmp_path, text))
    assert "ada.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_said_to_be_no_file(tmp_path):
    for path in (tmp_path / "nobody.yaml", tmp_path):
        with pytest.raises(PersonaError, match="is not a file"):
            load_persona(path)
