"""Studies on Ray: the figures are the same, and what is killed costs only its run."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from studies import __main__ as command
from studies.runner import on_ray, running
from studies.runner.local import run_local
from studies.runner.results import Results
from studies.runner.study import FOLDER, Study

COINS = str(Path(__file__).parents[1] / "data" / "studies" / "coins.py")


@pytest.fixture(scope="module")
def study():
    return Study(COINS)


@pytest.fixture(scope="module")
def session():
    """One Ray for all tests, with two runs at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "1")
        with on_ray.Session() as session:
            assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
            yield session
    assert not ray.is_initialized()


def run(study, results, runs, runner, retries=0):
    running.run_missing(study, results, lambda: runs, runner, retries, jobs=2)


def same(figures):
    return {name: figures[name] for name in figures if name != "process"}


def test_runs_have_the_figures_of_local_ones_each_in_a_process(
    study, session, tmp_path
):
    make = study.module.Settings
    runs = [make(1.0, ("a", "b")), make(2.0, threads=session.jobs)]
    on_ray, here = (Results(study, tmp_path / name) for name in ("ray", "local"))
    run(study, on_ray, runs, session.run)
    run(study, here, runs, run_local)
    for settings in runs:
        assert same(on_ray.done[settings]) == same(here.done[settings])
    assert len({os.getpid(), *(f["process"] for f in on_ray.done.values())}) == 3


def test_a_worker_that_is_killed_costs_only_its_run(study, session, tmp_path):
    make = study.module.Settings
    raised, killed = make(1.0, fault="raises"), make(1.0, fault="killed")
    once = make(1.0, fault="killed once", folder=str(tmp_path))
    runs = [raised, killed, once, make(1.0)]
    results = Results(study, tmp_path)
    run(study, results, runs, session.run)
    assert [*results.done] == [make(1.0)]
    assert results.failed[raised]["error"] == "RuntimeError: The coin is lost."
    for settings in (killed, once):
        error = results.failed[settings]["error"]
        assert error.startswith(
            "The process of the run ended by Ray's WorkerCrashedError: The worker died"
        )
    # The next start does what is missing, and no more.
    asked = []

    def runner(study, runs):
        asked.extend(runs)
        return session.run(study, runs)

    again = Results(study, tmp_path)
    run(study, again, [once, make(1.0)], runner)
    assert asked == [once]
    assert again.done[once]["sum"] == 1


def test_a_cluster_is_used_by_its_address(study, session, tmp_path):
    """The process that starts the study ends, and the cluster goes on."""
    address = ray.get_runtime_context().gcs_address
    arguments = [COINS, "--tiny", "--results", tmp_path, "--ray", address]
    ended = subprocess.run(
        [sys.executable, "-m", "studies", *arguments],
        cwd=FOLDER.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "1 of 1 runs are in" in ended.stdout
    [figures] = Results(study, tmp_path).done.values()
    assert figures["sum"] == 1


def test_a_run_that_fits_on_no_machine_is_refused(study, session):
    threads = study.module.Settings(1.0, threads=10**6)
    with pytest.raises(ValueError, match="--cpus must be at most what one machine"):
        next(session.run(study, [threads]))


def test_an_address_that_does_not_answer_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(on_ray, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        code = command.main([COINS, "--results", str(tmp_path), "--ray", address])
    assert code == 2
    assert (
        "--ray must be HOST:PORT of a Ray cluster that answers. Received: "
        f"{address}, no answer in 0.2 s. Start one" in capsys.readouterr().err
    )


def test_what_ray_says_of_a_cluster_is_passed_on(monkeypatch, tmp_path, capsys):
    def refuse(*arguments, **options):
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setattr(on_ray, "_check_that_it_answers", lambda address: None)
    monkeypatch.setattr(ray, "init", refuse)
    arguments = [COINS, "--results", str(tmp_path), "--ray", "head:1"]
    assert command.main(arguments) == 2
    assert (
        "Received: head:1, Failed to connect to Ray cluster. If it asks for a token, "
        "set RAY_AUTH_MODE=token. Start one" in capsys.readouterr().err
    )


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:x", "ray://h:1"])
def test_what_is_no_address_is_refused(address, tmp_path, capsys):
    assert command.main([COINS, "--results", str(tmp_path), "--ray", address]) == 2
    assert f"Received: {address}, that is no HOST:PORT." in capsys.readouterr().err


def test_without_ray_the_error_names_the_extra(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert command.main([COINS, "--results", str(tmp_path), "--ray"]) == 2
    assert 'pip install ".[studies]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ray", COINS], "--ray must come behind NAME"),
        ([COINS, "--ray", "--jobs", "2"], "--ray must be without --local and --jobs"),
        ([COINS, "--cpus", "2"], "--cpus and --gpus must be with --ray"),
        ([COINS, "--ray", "--cpus", "0"], "--cpus must be at least 1. Received: 0."),
        ([COINS, "--ray", "--gpus", "1.5"], "above 1 a whole number. Received: 1.5."),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert message in capsys.readouterr().err
