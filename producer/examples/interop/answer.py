# A service that answers Correio's requests. Needs pika (`pip install pika`) and the broker of docker-compose.yml.
#
#   python3 answer.py orders                          answers in capitals, and nothing with an error
#   echo two pizzas | producer request --to orders    prints TWO PIZZAS
#
# Stops with Ctrl-C, or after COUNT requests: COUNT=1 python3 answer.py orders
import os
import sys

import pika
from pika.exceptions import UnroutableError


def work(text):
    if not text.strip():
        raise ValueError("there is nothing to write in capitals")
    return text.upper()


service = sys.argv[1]
url = os.environ.get("AMQP_URL", "amqp://consumer:consumer@localhost:5672/%2f")
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.confirm_delivery()  # basic_publish waits for the broker's answer
channel.basic_qos(prefetch_count=10)
left = int(os.environ.get("COUNT", -1))
for method, request, body in channel.consume(service):
    reply = pika.BasicProperties(
        correlation_id=request.correlation_id or request.message_id,  # which request it answers
        app_id="answer.py",
        delivery_mode=2,
        expiration=request.expiration,  # nobody reads it after that
    )
    try:
        answer = work(body.decode())
    except ValueError as error:  # trying again would not help, so who asked is told
        answer = ""
        reply.headers = {"correio-error": "empty", "correio-error-text": str(error)}
    if request.reply_to:
        try:
            channel.basic_publish("correio.reply", request.reply_to, answer.encode(), reply, mandatory=True)
        except UnroutableError:
            print("who asked has gone:", reply.correlation_id, file=sys.stderr)
    channel.basic_ack(method.delivery_tag)  # only now: a request whose answer is not on its way comes again
    left -= 1
    if left == 0:
        break
connection.close()
