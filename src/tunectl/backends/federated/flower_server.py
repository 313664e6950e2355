"""Flower's server: ``python -m tunectl.backends.federated.flower_server FOLDER``, in Flower's environment.

Sends the adapter to clients that know the token, waits for theirs, averages. A client that fails, sends a wrong shape or is late is
left out of the round. After each round its weights are written, so a killed server resumes with the next one.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tunectl.artifacts import atomic_io
from tunectl.backends.system import terminal
from tunectl.federated import averaging, exchange
from tunectl.federated.exchange import Contribution, FederatedRound, ServerTask

MAX_ASKED = 64
"""Clients that are asked for their names at once."""
MAX_NAME = 200
"""Characters of a client's name, which stands in records and in the log."""
MAX_REASON = 500
"""Characters of the reason why a client is left out, which may be the client's own text."""
GRACE_SECONDS = 120.0
"""Seconds that the first round waits for clients beyond min_clients, where it is known how many there are."""


def main(folder: Path) -> int:
    """Serve the remaining rounds of the federation whose files are in ``folder``; returns the exit code."""
    task: ServerTask = atomic_io.read_json(folder / exchange.SERVER, ServerTask)
    try:
        serve(folder, task)
    except Exception as error:  # noqa: BLE001  the parent process prints the error
        atomic_io.write_json(folder / exchange.FAILURE, exchange.FlowerFailure(f"{type(error).__name__}: {error}"))
        return 1
    return 0


def serve(folder: Path, task: ServerTask) -> None:
    """Run the rounds that ``folder`` has no record of yet; write the averaged weights of round N to ``round-N.npz``."""
    from flwr.server import ServerConfig, start_server

    logging.getLogger("flwr").setLevel(logging.ERROR)  # our own lines replace Flower's log
    past_rounds = len(exchange.read_rounds(folder))
    if past_rounds >= task.rounds:
        return
    certificates = None
    if task.certificates is not None:
        ca, certificate, key = (Path(name).read_bytes() for name in task.certificates)
        certificates = (ca, certificate, key)
    start_server(
        server_address=f"{task.host}:{task.port}",
        config=ServerConfig(num_rounds=task.rounds - past_rounds, round_timeout=float(task.round_timeout_seconds)),
        strategy=_build_strategy(RoundKeeper(folder, task, past_rounds)),
        certificates=certificates,
    )


def _build_strategy(rounds: RoundKeeper) -> Any:
    """Return Flower's FedAvg with our choice of clients, our checks and our records."""
    from flwr.common import FitIns, ndarrays_to_parameters, parameters_to_ndarrays
    from flwr.server.strategy import FedAvg

    names = rounds.names

    class NamedFedAvg(FedAvg):
        """FedAvg over clients that know the token."""

        def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> list[tuple[Any, Any]]:
            """Wait for clients, and draw those of this round."""
            settings = {
                "round": rounds.past_rounds + server_round,
                "rounds": rounds.task.rounds,
                "names": json.dumps(names),
            }
            settings["base"] = rounds.task.base
            return [(client, FitIns(parameters, settings)) for client in rounds.draw(server_round, client_manager)]

        def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> tuple[Any, dict[str, Any]]:
            """Average the valid answers."""
            weights = rounds.end(server_round, results, failures, self._take_mean)
            return ndarrays_to_parameters([weights[name] for name in names]), {}

        def _take_mean(self, ordered: Sequence[Answer]) -> dict[str, Any]:
            parameters, _ = super().aggregate_fit(0, [(item.client, item.response) for item in ordered], [])
            return dict(zip(names, parameters_to_ndarrays(parameters), strict=True))

    start = ndarrays_to_parameters([rounds.start[name] for name in names])
    return NamedFedAvg(fraction_evaluate=0.0, initial_parameters=start, accept_failures=True)


class Answer(NamedTuple):
    """Reply of one client in a round: the client's proxy, Flower's response, and the adapter tensors in it."""

    client: Any
    response: Any
    update: dict[str, Any]


class RoundKeeper:
    """Chooses the clients of each round, averages their adapters, and writes each round's record to ``rounds.jsonl``.

    ``past_rounds`` rounds ran before this process.
    """

    def __init__(self, folder: Path, task: ServerTask, past_rounds: int) -> None:
        self.folder, self.task, self.past_rounds = folder, task, past_rounds
        self.start = exchange.read_weights(exchange.round_file(folder, past_rounds))
        self.names = sorted(self.start)
        self._members: dict[str, str] = {}
        """Flower's id of a connection to the name of its client; an empty name does not know the token."""
        self._duplicates: set[str] = set()
        """Connections whose name another one has, and for which that was printed."""
        self._sample_size = 0

    def draw(self, server_round: int, client_manager: Any) -> list[Any]:
        """Return the Flower client proxies of a round, sampled with the federation's seed once enough clients are connected.

        ``server_round`` counts the rounds of this process from 1.
        Raises  TimeoutError where too few clients connect in time.
        """
        if not self.past_rounds and server_round == 1:
            self._wait_for_clients(client_manager, self.task.expected_clients, GRACE_SECONDS)
        present, share = self._wait_for_clients(client_manager), self.task.fraction_train
        count = min(len(present), max(self.task.min_clients, round(share * len(present))))
        dice = random.Random(f"{self.task.seed}:{self.past_rounds + server_round}")  # noqa: S311  a sample, not a secret
        sample = sorted(dice.sample(sorted(present), count))
        self._sample_size = len(sample)
        return [present[name] for name in sample]

    def end(
        self, server_round: int, results: Any, failures: Any, mean: Callable[[Sequence[Answer]], dict[str, Any]]
    ) -> dict[str, Any]:
        """Average the adapters of round ``server_round`` by ``mean``, write its weights and its record, and return the weights.

        Malformed answers are left out; with fewer than ``min_clients`` left, the weights do not change. Equal answers give equal bytes.
        """
        number = self.past_rounds + server_round
        before = exchange.read_weights(exchange.round_file(self.folder, number - 1))
        fitting, reasons = self._sort_out(results, before)
        reasons = [_clean(reason) for reason in (*map(_describe, failures), *reasons)]
        ordered = [fitting[name] for name in sorted(fitting)]
        averaged = len(ordered) >= self.task.min_clients
        contributions = [_count(name, fitting[name].response) for name in sorted(fitting)]
        weights = self._average(ordered, mean) if averaged else before
        exchange.write_weights(exchange.round_file(self.folder, number), weights)
        record = FederatedRound(number, self._sample_size, contributions, reasons, averaged)
        atomic_io.write_rows(self.folder / exchange.ROUNDS, [*exchange.read_rounds(self.folder), record])
        rest = "" if averaged else ", too few: not averaged"
        _print(f"round {number} of {self.task.rounds}: {len(ordered)} of {self._sample_size} clients{rest}")
        return weights

    def _sort_out(self, results: Any, before: dict[str, Any]) -> tuple[dict[str, Answer], list[str]]:
        """Return valid answers by client, and why the others are invalid."""
        from flwr.common import parameters_to_ndarrays

        fitting: dict[str, Answer] = {}
        reasons = []
        for client, response in results:
            name = self._members[client.cid]
            try:
                update = dict(zip(self.names, parameters_to_ndarrays(response.parameters), strict=True))
                averaging.check_update(update, before)
                averaging.check_count(response.num_examples)
                averaging.check_steps(response.metrics.get("steps"))
                averaging.check_rows(
                    response.num_examples, response.metrics.get("rows"), response.metrics.get("refused")
                )
                fitting[name] = Answer(client, response, update)
            except Exception as error:  # noqa: BLE001  a client's malformed answer must not end the round
                reasons.append(f"{name}: {error}")
        return fitting, reasons

    def _average(self, ordered: Sequence[Answer], mean: Callable[[Sequence[Answer]], dict[str, Any]]) -> dict[str, Any]:
        if self.task.weighting == "clients":
            for answer in ordered:
                answer.response.num_examples = 1
        if self.task.average == "product":
            shares = [float(answer.response.num_examples) for answer in ordered]
            return averaging.average_products([answer.update for answer in ordered], shares)
        return {name: value.astype(self.start[name].dtype) for name, value in mean(ordered).items()}

    def _wait_for_clients(self, client_manager: Any, expected: int = 0, grace: float = 0.0) -> dict[str, Any]:
        """Return clients by name once there are ``min_clients``, and once there are ``expected`` or ``grace`` seconds are over."""
        started, least = time.monotonic(), self.task.min_clients
        while True:
            connected = dict(client_manager.all())
            self._ask_names(connected)
            present = self._find_present(connected)
            waited_seconds = time.monotonic() - started
            if len(present) >= least and (len(present) >= expected or waited_seconds > grace):
                return present
            if waited_seconds > self.task.wait_timeout_seconds:
                waited = self.task.wait_timeout_seconds
                raise TimeoutError(
                    f"{len(present)} clients connected within {waited} s, but federate.min_clients is {least}; "
                    "start more clients, or raise federate.wait_timeout_seconds"
                )
            time.sleep(0.2)

    def _find_present(self, connected: dict[str, Any]) -> dict[str, Any]:
        """Return clients by name; of two with one name the one that connected first, until it disconnects."""
        present: dict[str, Any] = {}
        for cid, client in connected.items():
            name = self._members[cid]
            if name and present.setdefault(name, client) is not client and cid not in self._duplicates:
                self._duplicates.add(cid)
                _print(f"a second client named {name} is ignored: each needs a name of its own")
        return present

    def _ask_names(self, connected: dict[str, Any]) -> None:
        """Ask the new connections for their names, at once: one after the other, each that does not answer would hold up the round."""
        new = [cid for cid in connected if cid not in self._members]
        with ThreadPoolExecutor(MAX_ASKED) as threads:
            self._members.update(zip(new, threads.map(lambda cid: self._ask_name(connected[cid]), new), strict=True))

    def _ask_name(self, client: Any) -> str:
        """Return the name of a client that knows the token, else an empty text."""
        from flwr.common import GetPropertiesIns

        try:
            answer = client.get_properties(GetPropertiesIns({}), timeout=30.0, group_id=None).properties
        except Exception as error:  # noqa: BLE001  the client has disconnected
            _print(f"a client does not answer: {error}")
            return ""
        token = os.environ.get(self.task.token_env, "")
        if not hmac.compare_digest(str(answer.get("token", "")).encode(), token.encode()):
            _print(f"a client without the token of {self.task.token_env} is ignored")
            return ""
        name = str(answer.get("name", ""))
        if not name:
            _print("a client that says no name is ignored")
        elif len(name) > MAX_NAME or not name.isprintable():
            _print(f"a client whose name is not printable, or has more than {MAX_NAME} characters, is ignored")
            return ""
        return name


def _count(name: str, response: Any) -> Contribution:
    """Return the counts in the checked answer of the client ``name``."""
    sent = response.metrics
    return Contribution(name, int(response.num_examples), int(sent["steps"]), int(sent["rows"]), int(sent["refused"]))


def _describe(failure: Any) -> str:
    """Return why a client is not in a round: Flower gives what was raised, or the client with its own message."""
    if isinstance(failure, tuple):
        return str(failure[1].status.message)
    return f"{type(failure).__name__}: {str(failure).splitlines()[0] if str(failure) else 'the connection was lost'}"


def _clean(text: str) -> str:
    """Return a text that may be a client's as one line without control codes, of at most ``MAX_REASON`` characters."""
    return terminal.strip_control(text[:MAX_REASON])


def _print(line: str) -> None:
    sys.stdout.write(_clean(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    exit_code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(exit_code)  # gRPC's threads would wait for clients that are still connected
