import socket
from pathlib import Path

import pytest
from pymongo import MongoClient

from DmpWorkflow.core.database.mongod import EmbeddedMongod, find_mongod
from DmpWorkflow.utils.errors import ConfigurationError, Unavailable


def test_it_takes_transactions(mongod: EmbeddedMongod) -> None:
    with MongoClient[dict[str, object]](mongod.uri) as client, client.start_session() as session:
        with session.start_transaction():
            client.test.things.insert_one({"_id": 1}, session=session)
        assert client.test.things.count_documents({}) == 1
        client.drop_database("test")


def test_a_second_start_finds_its_data_on_another_port_and_leaves_no_process(tmp_path: Path) -> None:
    with EmbeddedMongod(tmp_path) as first, MongoClient[dict[str, object]](first.uri) as client:
        client.kept.things.insert_one({"_id": 1})
    with EmbeddedMongod(tmp_path) as second, MongoClient[dict[str, object]](second.uri) as client:
        assert second.port != first.port
        assert client.kept.things.count_documents({}) == 1
    assert first.process is not None and first.process.poll() == 0
    assert second.process is not None and second.process.poll() == 0


def test_a_busy_port_is_one_plain_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Unavailable, match="mongod ended with exit code"):
            EmbeddedMongod(tmp_path, port=taken.getsockname()[1]).start()


def test_a_configured_mongod_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no mongod at"):
        find_mongod(tmp_path / "mongod")
