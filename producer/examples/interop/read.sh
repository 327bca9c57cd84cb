#!/bin/sh
# Reads what Correio's producers send. Needs Debian's amqp-tools and the broker of docker-compose.yml.
#
#   sh read.sh queue orders                    its share of:           producer send --to orders
#   sh read.sh mailbox ana                     what is Ana's:          producer send --mailbox ana
#   sh read.sh topic 'flight.*.LAX' west       what it subscribed to:  producer send --topic flight.DFW.LAX
#   sh read.sh broadcast ana                   everything for all:     producer send --broadcast
#
# Prints each payload on a line; amqp-consume shows none of a message's properties. Stops with Ctrl-C, or after COUNT
# messages: COUNT=1 sh read.sh …
#
# amqp-consume cannot make a queue that lasts: in the last three modes it is gone, with what is in it, when this ends.
# One that lasts is made by `consumer run --mailbox ana`, and read here as it is: sh read.sh queue correio.mailbox.ana
#
# Nor can amqp-tools answer a request: amqp-consume does not show whom to answer, and amqp-publish sets no correlation_id.
# `consumer run --exec` answers from the shell.
set -eu

case $1 in
    queue)     set -- --queue="$2" ;;
    mailbox)   set -- --exclusive --queue="correio.mailbox.$2" --exchange=correio.queue --routing-key="correio.mailbox.$2" ;;
    topic)     set -- --exclusive --queue="correio.group.$3" --exchange=correio.topic --routing-key="$2" ;;
    broadcast) set -- --exclusive --queue="correio.broadcast.$2" --exchange=correio.broadcast --routing-key=all ;;
esac
url=${AMQP_URL:-amqp://consumer:consumer@localhost:5672/%2f}
# The work is any command with the payload on its standard input. When it ends with 0 the message is acknowledged, else it
# comes again when this ends.
exec amqp-consume --url="$url" --prefetch-count=10 ${COUNT:+--count="$COUNT"} "$@" -- sh -c 'cat; echo'
