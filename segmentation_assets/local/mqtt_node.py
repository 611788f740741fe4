"""The process of the local MQTT broker: ``python -m segmentation_assets.local.mqtt_node``.

What belongs here: amqtt's configuration, running it in this process, and ending when told to. What does not: whether to
start one (``mqtt.py``). Imported by that process alone, and by amqtt for its plugin.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

from amqtt import broker as amqtt_broker
from amqtt.mqtt.constants import QOS_1
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.mqtt.puback import PubackPacket
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import OutgoingApplicationMessage, Session

from segmentation_assets.local.service import ServiceFiles, is_still_wanted

_POLL_SECONDS = 1.0
_CLOSE_SECONDS = 10.0


class Anybody(BaseAuthPlugin):  # type: ignore[misc]
    """Lets everybody in, as a client with a name.

    amqtt's own plugin for this marks the session as anonymous, and forgets such sessions when their client is away.
    """

    async def authenticate(self, *, session: Session) -> bool:
        """Yes."""
        return True


class AtLeastOnce(BrokerProtocolHandler):  # type: ignore[misc]
    """Keeps a message of QoS 1 until its receiver has acknowledged it, as MQTT 3.1.1 (4.4) asks.

    amqtt 0.12 forgets it when the connection breaks, and after five seconds without an answer: whatever a killed client
    had not acknowledged would be lost to its session.
    """

    async def _handle_qos1_message_flow(self, app_message: object) -> None:
        """Send it, and do not wait: ``handle_puback`` forgets it, and the next connection sends again what is left."""
        if self.session is None or not isinstance(app_message, OutgoingApplicationMessage):
            await super()._handle_qos1_message_flow(app_message)
            return
        self.session.inflight_out[app_message.packet_id] = app_message
        app_message.publish_packet = app_message.build_publish_packet(dup=app_message.publish_packet is not None)
        await self._send_packet(app_message.publish_packet)

    async def handle_puback(self, puback: PubackPacket) -> None:
        """The receiver has it."""
        sent = self.session.inflight_out.get(puback.packet_id) if self.session is not None else None
        if sent is not None and sent.qos == QOS_1:
            del self.session.inflight_out[puback.packet_id]


async def run(files: ServiceFiles, port: int) -> None:
    """Be the broker of this folder until told to end."""
    told_to_end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_end.set)
    amqtt_broker.BrokerProtocolHandler = AtLeastOnce
    broker = amqtt_broker.Broker(
        {
            # there is no password: nobody outside this machine may reach it
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {f"segmentation_assets.local.mqtt_node.{Anybody.__name__}": {}},
        }
    )
    await broker.start()
    files.ready.write_text(str(os.getpid()))
    while is_still_wanted(files):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(told_to_end.wait(), _POLL_SECONDS)
            break
    await asyncio.wait_for(broker.shutdown(), _CLOSE_SECONDS)


def main(arguments: list[str]) -> None:
    """Entry point; the arguments come from ``mqtt.py``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="[%(asctime)s][%(levelname)s][%(name)s] %(message)s")
    asyncio.run(run(ServiceFiles(given.root, "mqtt"), given.port))


if __name__ == "__main__":
    main(sys.argv[1:])
