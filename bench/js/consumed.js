// Consuming with amqplib, as its users write it: a callback for each message, and one acknowledgement for every hundred.
//
//   AMQP_URL=amqp://… node consumed.js QUEUE MESSAGES BYTES PREFETCH
//
// Prints one line, the same as the other ways: seconds and CPU from the subscription to the end of the connection, how many
// different messages came, and how many came twice.
const amqp = require('amqplib');

const ACKNOWLEDGED_AT_ONCE = 100;
const [queue, messages, , prefetch] = process.argv.slice(2).map((word, at) => (at === 0 ? word : Number(word)));

async function main() {
  const connection = await amqp.connect(process.env.AMQP_URL, { noDelay: true });
  const channel = await connection.createChannel();
  await channel.prefetch(prefetch);
  const seen = new Uint8Array(messages);
  let received = 0;
  let consumed = 0;
  let wrong = 0;
  let began;
  let cpuBegan;
  const start = () => {
    began ??= process.hrtime.bigint();
    cpuBegan ??= process.cpuUsage();
  };
  await new Promise((resolve, reject) => {
    const onMessage = (message) => {
      if (message === null) return reject(new Error('the broker cancelled the consumer'));
      // The promise of the subscription may come to its turn after the first messages.
      if (received === 0) start();
      // The number of a message stands in the first bytes of its body.
      const number = message.content.readUInt32BE(0) * 2 ** 32 + message.content.readUInt32BE(4);
      if (number < messages && seen[number] === 0) {
        seen[number] = 1;
        consumed += 1;
      } else {
        wrong += 1;
      }
      received += 1;
      if (received % ACKNOWLEDGED_AT_ONCE === 0 || received === messages) channel.ack(message, true);
      if (received === messages) resolve();
      return undefined;
    };
    channel.on('error', reject);
    channel.consume(queue, onMessage).then(start, reject);
  });
  await channel.close();
  await connection.close();
  const seconds = Number(process.hrtime.bigint() - began) / 1e9;
  const cpu = process.cpuUsage(cpuBegan);
  const cpuSeconds = (cpu.user + cpu.system) / 1e6;
  console.log(
    `seconds=${seconds.toFixed(6)} cpu_seconds=${cpuSeconds.toFixed(6)} ` +
      `confirmed=0 unroutable=0 fired=0 consumed=${consumed} wrong=${wrong}`,
  );
}

main().catch((error) => {
  console.error(`amqplib: ${error.message}`);
  process.exit(1);
});
