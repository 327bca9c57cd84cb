# Sends one message to Correio's consumers. Needs pika (`pip install pika`) and the broker of docker-compose.yml.
#
#   python3 send.py queue orders 'two pizzas'         to any one of:          consumer run --from orders
#   python3 send.py mailbox ana 'hello Ana'           to one receiver:        consumer run --mailbox ana
#   python3 send.py topic flight.DFW.LAX 'is late'    to who subscribed:      consumer run --topic 'flight.*.LAX' --group west
#   python3 send.py broadcast 'we close at five'      to everyone:            consumer run --broadcast
#
# Prints the message's id once the broker has it on disk; exit code 1: nobody is there, or it was refused.
import os
import sys
import time
import uuid

import pika
from pika.exceptions import NackError, UnroutableError

mode, *name, text = sys.argv[1:]
name = "".join(name)
exchange, routing_key = {
    "queue": ("correio.queue", name),
    "mailbox": ("correio.queue", f"correio.mailbox.{name}"),
    "topic": ("correio.topic", name),
    "broadcast": ("correio.broadcast", ""),
}[mode]

properties = pika.BasicProperties(
    message_id=str(uuid.uuid4()),  # one effect for each id: keep it when you send the same message again
    app_id="send.py",              # whose ids they are
    type="greeting",               # chooses the handler
    content_type="text/plain",
    timestamp=int(time.time()),
    delivery_mode=2,               # survives a restart of the broker
)
url = os.environ.get("AMQP_URL", "amqp://producer:producer@localhost:5672/%2f")
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.confirm_delivery()  # from here on basic_publish waits for the broker's answer
try:
    channel.basic_publish(exchange, routing_key, text.encode(), properties, mandatory=True)
except (UnroutableError, NackError) as error:
    sys.exit(f"not sent: {'nobody is there' if isinstance(error, UnroutableError) else 'refused'}")
print(properties.message_id)
connection.close()
