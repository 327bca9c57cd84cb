// A service that answers Correio's requests. Needs amqplib (`npm install amqplib`) and the broker of docker-compose.yml.
//
//   node answer.js orders                             answers in capitals, and nothing with an error
//   echo two pizzas | producer request --to orders    prints TWO PIZZAS
//
// Stops with Ctrl-C, or after COUNT requests: COUNT=1 node answer.js orders
const amqp = require('amqplib');

function work(text) {
  if (!text.trim()) throw new Error('there is nothing to write in capitals');
  return text.toUpperCase();
}

const [service] = process.argv.slice(2);

async function main() {
  const connection = await amqp.connect(process.env.AMQP_URL ?? 'amqp://consumer:consumer@localhost:5672/%2f');
  const channel = await connection.createConfirmChannel();
  channel.on('return', (reply) => console.error('who asked has gone:', reply.properties.correlationId));
  await channel.prefetch(1); // one after the other: the next comes when this one is acknowledged
  let left = Number(process.env.COUNT ?? Infinity);
  await channel.consume(service, async (request) => {
    if (request === null) throw new Error('the queue was deleted');
    const { correlationId, messageId, replyTo, expiration } = request.properties;
    let answer = '';
    let headers = {};
    try {
      answer = work(request.content.toString());
    } catch (error) { // trying again would not help, so who asked is told
      headers = { 'correio-error': 'empty', 'correio-error-text': error.message };
    }
    if (replyTo) {
      channel.publish('correio.reply', replyTo, Buffer.from(answer), {
        correlationId: correlationId ?? messageId, // which request it answers
        appId: 'answer.js',
        persistent: true,
        mandatory: true,
        expiration, // nobody reads it after that
        headers,
      });
      await channel.waitForConfirms();
    }
    channel.ack(request); // only now: a request whose answer is not on its way comes again
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
