//! AMQP 0-9-1 written by hand: it publishes what no client library lets anyone publish.

use correio_broker_config::Address;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A connection with one channel in confirm mode.
#[derive(Debug)]
pub struct RawPublisher {
    stream: TcpStream,
}

impl RawPublisher {
    /// Connects to the virtual host `/`.
    ///
    /// # Panics
    ///
    /// If that does not succeed.
    pub async fn connect(url: &str) -> Self {
        let address = Address::parse(url).expect("an address");
        let (_, rest) = url.split_once("://").expect("a URL");
        let (login, _) = rest.split_once('@').expect("a login");
        let (user, password) = login.split_once(':').expect("a password");
        let stream = TcpStream::connect((address.host(), address.port())).await.expect("a broker");
        let mut this = Self { stream };
        this.stream.write_all(b"AMQP\0\0\x09\x01").await.expect("sent");
        this.until(10, 10).await;
        let login = format!("\0{user}\0{password}");
        this.method(0, 10, 11, &[long(b""), short(b"PLAIN"), long(login.as_bytes()), short(b"en_US")].concat()).await;
        let limits = this.until(10, 30).await;
        this.method(0, 10, 31, &[&limits[..6], &[0, 0]].concat()).await;
        this.method(0, 10, 40, &[short(b"/"), short(b""), vec![0]].concat()).await;
        this.until(10, 41).await;
        this.method(1, 20, 10, &short(b"")).await;
        this.until(20, 11).await;
        this.method(1, 85, 10, &[0]).await;
        this.until(85, 11).await;
        this
    }

    /// Binds a queue to an exchange.
    pub async fn bind(&mut self, queue: &str, exchange: &str) {
        let arguments =
            [vec![0, 0], short(queue.as_bytes()), short(exchange.as_bytes()), short(b""), vec![0], long(b"")];
        self.method(1, 50, 20, &arguments.concat()).await;
        self.until(50, 21).await;
    }

    /// Publishes and waits for the confirm. The properties are those of the flags, highest first, as they go on the wire.
    pub async fn publish(
        &mut self,
        exchange: &str,
        routing_key: &[u8],
        (flags, properties): (u16, &[u8]),
        body: &[u8],
    ) {
        let to = [vec![0, 0], short(exchange.as_bytes()), short(routing_key), vec![0]].concat();
        self.method(1, 60, 40, &to).await;
        let length = (body.len() as u64).to_be_bytes();
        self.frame(2, 1, &[&[0, 60, 0, 0], &length[..], &flags.to_be_bytes(), properties].concat()).await;
        self.frame(3, 1, body).await;
        self.until(60, 80).await;
    }

    async fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        self.frame(1, channel, &[&class.to_be_bytes(), &method.to_be_bytes(), arguments].concat()).await;
    }

    async fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let frame = [&[kind], &channel.to_be_bytes()[..], &long(payload), &[0xCE]].concat();
        self.stream.write_all(&frame).await.expect("sent");
    }

    /// The arguments of the next method, which has to be this one.
    async fn until(&mut self, class: u16, method: u16) -> Vec<u8> {
        loop {
            let mut head = [0; 7];
            self.stream.read_exact(&mut head).await.expect("a frame");
            let [kind, _, _, size @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes(size) as usize + 1];
            self.stream.read_exact(&mut payload).await.expect("a payload");
            if kind == 1 {
                let wanted = [class.to_be_bytes(), method.to_be_bytes()].concat();
                assert!(payload.starts_with(&wanted), "the broker says {:?}", String::from_utf8_lossy(&payload));
                return payload.split_off(4);
            }
        }
    }
}

/// A short string.
///
/// # Panics
///
/// Past 255 bytes.
#[must_use]
pub fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("short")], text].concat()
}

/// A long string, or a table.
///
/// # Panics
///
/// Past 4 GiB.
#[must_use]
pub fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("not that long").to_be_bytes()[..], bytes].concat()
}

/// A headers table with one entry: tables, or arrays (`A`), within each other.
#[must_use]
pub fn nested(levels: usize, kind: u8) -> Vec<u8> {
    let name = if kind == b'F' { short(b"") } else { Vec::new() };
    let head = name.len() + 1 + 4;
    let mut table = [short(b"nested"), vec![kind]].concat();
    for level in (0..levels).rev() {
        table.extend_from_slice(&u32::try_from(level * head).expect("not that long").to_be_bytes());
        if level > 0 {
            table.extend_from_slice(&name);
            table.push(kind);
        }
    }
    long(&table)
}
