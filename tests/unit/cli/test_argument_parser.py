"""Options and words of a verb, and of its subcommands, in any order."""

import pytest

from tunectl.cli.main import MixedArgumentParser, main


@pytest.fixture
def parser():
    parser = MixedArgumentParser(prog="tunectl submit")
    parser.add_argument("--verbose", action="store_true")
    verb = parser.add_subparsers(dest="verb", required=True).add_parser("run")
    verb.add_argument("words", nargs="+")
    verb.add_argument("--to")
    verb.add_argument("--dry-run", action="store_true")
    return parser


@pytest.mark.parametrize(
    "words",
    [
        ["run", "sft", "key=value", "--to", "slurm"],
        ["run", "sft", "--to", "slurm", "key=value"],
        ["run", "--to", "slurm", "sft", "key=value"],
    ],
)
def test_options_may_stand_between_the_words_of_a_subcommand(parser, words):
    args = parser.parse_args(words)
    assert (args.verb, args.words, args.to, args.dry_run) == ("run", ["sft", "key=value"], "slurm", False)


def test_what_nothing_takes_and_what_is_missing_are_errors(parser, capsys):
    for words, message in (
        (["run", "sft", "--from", "x"], "unrecognized arguments: --from"),
        (["run", "--to", "slurm"], "the following arguments are required: words"),
        (["run", "sft", "--to"], "argument --to: expected one argument"),
    ):
        with pytest.raises(SystemExit) as caught:
            parser.parse_args(words)
        assert caught.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["data", "show"], ["data", "rejects"], ["monitor", "list"], ["retrain", "status"], ["log", "show"]]
)
def test_a_number_of_things_to_print_is_not_negative(words, capsys):
    for number in ("-3", "x", "٣"):
        with pytest.raises(SystemExit) as caught:
            main([*words, "-n", number])
        assert caught.value.code == 2
        assert "is no number from 0 on" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_the_demo_says_what_a_port_is(port, capsys):
    assert main(["demo", "--port", port]) == 2
    assert "a port is a number from 0 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--version"], ["pull", "--run-cache"], ["repro", "--verbose", "-h"], []], ids=" ".join
)
def test_dvc_gets_its_arguments_as_they_are(words, tmp_path, monkeypatch):
    started = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tunectl.backends.vcs.dvc_repo.build_command", lambda folder: (["dvc"], {}))
    monkeypatch.setattr("os.execve", lambda program, command, environment: started.append(command))
    main(["dvc", *words])
    assert started == [["dvc", *words]]


@pytest.mark.parametrize(
    "words", [["release", "--verbose", "show", "x"], ["release", "show", "x", "--verbose"]], ids=" ".join
)
def test_verbose_may_stand_after_a_verb_and_after_its_subcommand(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):\n")
    assert "\ntunectl: " in shown
