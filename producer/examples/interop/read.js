// Reads what Correio's producers send. Needs amqplib (`npm install amqplib`) and the broker of docker-compose.yml.
//
//   node read.js queue orders                    its share of:           producer send --to orders
//   node read.js mailbox ana                     what is Ana's:          producer send --mailbox ana
//   node read.js topic 'flight.*.LAX' west       what it subscribed to:  producer send --topic flight.DFW.LAX
//   node read.js broadcast ana                   everything for all:     producer send --broadcast
//
// Prints a JSON object for each message. Stops with Ctrl-C, or after COUNT messages: COUNT=1 node read.js …
const amqp = require('amqplib');

const [mode, name, group] = process.argv.slice(2);
const [queue, exchange, routingKey] = {
  queue: [name],
  mailbox: [`correio.mailbox.${name}`, 'correio.queue', `correio.mailbox.${name}`],
  topic: [`correio.group.${group}`, 'correio.topic', name],
  broadcast: [`correio.broadcast.${name}`, 'correio.broadcast', ''],
}[mode];

async function main() {
  const connection = await amqp.connect(process.env.AMQP_URL ?? 'amqp://consumer:consumer@localhost:5672/%2f');
  const channel = await connection.createChannel();
  if (exchange) {
    // A queue of its own that keeps messages for a week while nobody is here. One that Correio's consumer has made has
    // other arguments, and the broker refuses these (406): read that one as it is, `read.js queue correio.mailbox.ana`.
    const args = { 'x-queue-type': 'quorum', 'x-delivery-limit': 100, 'x-expires': 7 * 24 * 3600 * 1000 };
    await channel.assertQueue(queue, { durable: true, arguments: args });
    await channel.bindQueue(queue, exchange, routingKey);
  }
  console.error('reading', queue);

  await channel.prefetch(10); // without it the broker sends all at once
  let left = Number(process.env.COUNT ?? Infinity);
  await channel.consume(queue, async (message) => {
    if (message === null) throw new Error('the queue was deleted');
    if (left === 0) return; // more than was wanted: unacknowledged, it stays on the queue
    const { messageId: id, type, appId: origin } = message.properties;
    console.log(JSON.stringify({ id, type, origin, payload: message.content.toString() })); // the work
    channel.ack(message); // after it: whatever ends this before, the message comes again
    left -= 1;
    if (left === 0) {
      await channel.close(); // first, else the last acknowledgement can be overtaken by the connection's end
      await connection.close();
    }
  });
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
