// Sends one message to Correio's consumers. Needs amqplib (`npm install amqplib`) and the broker of docker-compose.yml.
//
//   node send.js queue orders 'two pizzas'         to any one of:          consumer run --from orders
//   node send.js mailbox ana 'hello Ana'           to one receiver:        consumer run --mailbox ana
//   node send.js topic flight.DFW.LAX 'is late'    to who subscribed:      consumer run --topic 'flight.*.LAX' --group west
//   node send.js broadcast 'we close at five'      to everyone:            consumer run --broadcast
//
// Prints the message's id once the broker has it on disk; exit code 1: nobody is there, or it was refused.
const { randomUUID } = require('node:crypto');
const amqp = require('amqplib');

const [mode, ...words] = process.argv.slice(2);
const text = words.pop();
const [name] = words;
const [exchange, routingKey] = {
  queue: ['correio.queue', name],
  mailbox: ['correio.queue', `correio.mailbox.${name}`],
  topic: ['correio.topic', name],
  broadcast: ['correio.broadcast', ''],
}[mode];

async function main() {
  const connection = await amqp.connect(process.env.AMQP_URL ?? 'amqp://producer:producer@localhost:5672/%2f');
  const channel = await connection.createConfirmChannel();
  let nobodyThere = false;
  channel.on('return', () => { nobodyThere = true; }); // comes before the confirm
  const messageId = randomUUID();
  channel.publish(exchange, routingKey, Buffer.from(text), {
    messageId, //                one effect for each id: keep it when you send the same message again
    appId: 'send.js', //         whose ids they are
    type: 'greeting', //         chooses the handler
    contentType: 'text/plain',
    timestamp: Math.floor(Date.now() / 1000),
    persistent: true, //         survives a restart of the broker
    mandatory: true, //          comes back when no queue wants it
  });
  await channel.waitForConfirms(); // throws when it was refused
  await connection.close();
  if (nobodyThere) throw new Error('nobody is there');
  console.log(messageId);
}

main().catch((error) => {
  console.error(`not sent: ${error.message}`);
  process.exit(1);
});
