# Asks a Correio service and prints its answer. Needs pika (`pip install pika`) and the broker of docker-compose.yml.
#
#   consumer run --from orders --exec 'tr a-z A-Z'      the service: any command
#   python3 ask.py orders 'two pizzas'                  prints TWO PIZZAS
#
# Exit code 1: there is no such service, it answered with an error, or it did not answer within ten seconds.
import os
import sys
import time
import uuid

import pika
from pika.exceptions import UnroutableError

DEADLINE = 10  # seconds
service, question = sys.argv[1:]
url = os.environ.get("AMQP_URL", "amqp://producer:producer@localhost:5672/%2f")
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.confirm_delivery()

# A queue of its own, bound by its own name. The broker removes it when nobody was there for five minutes.
replies = f"correio.reply.{uuid.uuid4()}"
arguments = {"x-queue-type": "quorum", "x-delivery-limit": 100, "x-expires": 300_000}
channel.queue_declare(replies, durable=True, arguments=arguments)
channel.queue_bind(replies, "correio.reply", replies)

request = pika.BasicProperties(
    message_id=str(uuid.uuid4()),
    app_id="ask.py",
    reply_to=replies,
    delivery_mode=2,
    # Nobody is to work on it when nobody waits any more: the first tells the broker, the second the service.
    expiration=str(DEADLINE * 1000),
    headers={"correio-deadline-us": int((time.time() + DEADLINE) * 1e6)},
)
failed = "no answer in time"
try:
    channel.basic_publish("correio.queue", service, question.encode(), request, mandatory=True)
    for method, reply, body in channel.consume(replies, auto_ack=True, inactivity_timeout=DEADLINE):
        if method and reply.correlation_id != request.message_id:
            continue
        if method:
            headers = reply.headers or {}
            failed = "correio-error" in headers and f"{headers['correio-error']}: {headers['correio-error-text']}"
        if not failed:
            print(body.decode())
        break
except UnroutableError:
    failed = "no such service"
channel.queue_delete(replies)
connection.close()
sys.exit(failed or 0)
