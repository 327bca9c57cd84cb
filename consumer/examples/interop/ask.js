// Asks a Correio service and prints its answer. Needs amqplib (`npm install amqplib`) and the broker of docker-compose.yml.
//
//   consumer run --from orders --exec 'tr a-z A-Z'      the service: any command
//   node ask.js orders 'two pizzas'                     prints TWO PIZZAS
//
// Exit code 1: there is no such service, it answered with an error, or it did not answer within ten seconds.
const { randomUUID } = require('node:crypto');
const amqp = require('amqplib');

const DEADLINE = 10_000; // milliseconds
const [service, question] = process.argv.slice(2);

async function main() {
  const connection = await amqp.connect(process.env.AMQP_URL ?? 'amqp://producer:producer@localhost:5672/%2f');
  const channel = await connection.createChannel();

  // A queue of its own, bound by its own name. The broker removes it when nobody was there for five minutes.
  const replies = `correio.reply.${randomUUID()}`;
  const args = { 'x-queue-type': 'quorum', 'x-delivery-limit': 100, 'x-expires': 300_000 };
  await channel.assertQueue(replies, { durable: true, arguments: args });
  await channel.bindQueue(replies, 'correio.reply', replies);

  const messageId = randomUUID();
  const answered = new Promise((resolve, reject) => {
    channel.on('return', () => reject(new Error('no such service')));
    setTimeout(() => reject(new Error('no answer in time')), DEADLINE).unref();
    channel.consume(replies, (reply) => {
      if (reply?.properties.correlationId !== messageId) return;
      const { 'correio-error': kind, 'correio-error-text': why } = reply.properties.headers ?? {};
      if (kind) reject(new Error(`${kind}: ${why}`));
      else resolve(reply.content.toString());
    }, { noAck: true }).catch(reject);
  });
  channel.publish('correio.queue', service, Buffer.from(question), {
    messageId,
    appId: 'ask.js',
    replyTo: replies,
    persistent: true,
    mandatory: true, // comes back when there is no such service
    // Nobody is to work on it when nobody waits any more: the first tells the broker, the second the service.
    expiration: DEADLINE,
    headers: { 'correio-deadline-us': (Date.now() + DEADLINE) * 1000 },
  });
  try {
    console.log(await answered);
  } finally {
    await channel.deleteQueue(replies);
    await connection.close();
  }
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
