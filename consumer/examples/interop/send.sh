#!/bin/sh
# Sends one message to Correio's consumers. Needs Debian's amqp-tools and the broker of docker-compose.yml.
#
#   sh send.sh queue orders 'two pizzas'         to any one of:          consumer run --from orders
#   sh send.sh mailbox ana 'hello Ana'           to one receiver:        consumer run --mailbox ana
#   sh send.sh topic flight.DFW.LAX 'is late'    to who subscribed:      consumer run --topic 'flight.*.LAX' --group west
#   sh send.sh broadcast 'we close at five'      to everyone:            consumer run --broadcast
#
# amqp-publish can say less than the other clients. It sets no message_id: a consumer counts the message as "without
# an id" and cannot tell a second copy of it. No app_id and no type: it has no origin, and only a consumer without
# types handles it. And it has neither confirms nor `mandatory`: exit code 0 says that it left, not that it arrived.
# `producer send` does all of that from the shell. Nor can amqp-tools ask a service: amqp-consume does not tell when its queue
# for the answer is bound, and an answer that comes before is lost. `producer request` asks from the shell.
set -eu

mode=$1 name=
if [ "$mode" != broadcast ]; then
    name=$2
    shift
fi
case $mode in
    queue)     exchange=correio.queue     key=$name ;;
    mailbox)   exchange=correio.queue     key=correio.mailbox.$name ;;
    topic)     exchange=correio.topic     key=$name ;;
    broadcast) exchange=correio.broadcast key= ;;
esac
url=${AMQP_URL:-amqp://producer:producer@localhost:5672/%2f}
exec amqp-publish --url="$url" --exchange="$exchange" --routing-key="$key" \
    --persistent --content-type=text/plain --body="$2"
