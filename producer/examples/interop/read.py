# Reads what Correio's producers send. Needs pika (`pip install pika`) and the broker of docker-compose.yml.
#
#   python3 read.py queue orders                    its share of:           producer send --to orders
#   python3 read.py mailbox ana                     what is Ana's:          producer send --mailbox ana
#   python3 read.py topic 'flight.*.LAX' west       what it subscribed to:  producer send --topic flight.DFW.LAX
#   python3 read.py broadcast ana                   everything for all:     producer send --broadcast
#
# Prints a JSON object for each message. Stops with Ctrl-C, or after COUNT messages: COUNT=1 python3 read.py …
import json
import os
import sys

import pika

mode, name, *group = sys.argv[1:]
queue, exchange, routing_key = {
    "queue": (name, None, None),
    "mailbox": (f"correio.mailbox.{name}", "correio.queue", f"correio.mailbox.{name}"),
    "topic": (f"correio.group.{''.join(group)}", "correio.topic", name),
    "broadcast": (f"correio.broadcast.{name}", "correio.broadcast", ""),
}[mode]
url = os.environ.get("AMQP_URL", "amqp://consumer:consumer@localhost:5672/%2f")
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
if exchange:
    # A queue of its own that keeps messages for a week while nobody is here. One that Correio's consumer has made has
    # other arguments, and the broker refuses these (406): read that one as it is, `read.py queue correio.mailbox.ana`.
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 100, "x-expires": 7 * 24 * 3600 * 1000}
    channel.queue_declare(queue, durable=True, arguments=arguments)
    channel.queue_bind(queue, exchange, routing_key)
print("reading", queue, file=sys.stderr, flush=True)

channel.basic_qos(prefetch_count=10)  # without it the broker sends all at once
left = int(os.environ.get("COUNT", -1))
for method, properties, body in channel.consume(queue):
    told = {"id": properties.message_id, "type": properties.type, "origin": properties.app_id}
    print(json.dumps(told | {"payload": body.decode()}), flush=True)  # the work
    channel.basic_ack(method.delivery_tag)  # after it: whatever ends this before, the message comes again
    left -= 1
    if left == 0:
        break
connection.close()
