//! A few words of PostgreSQL's protocol, as the lab has no client of it: come in, say something, hear the answer.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use correio_lab::postgres::Postgres;

/// A conversation with a server. Every answer has a deadline.
pub(crate) struct Conversation(TcpStream);

impl Conversation {
    /// Comes in as the user and to the database of the server's URL.
    pub(crate) fn with(server: &Postgres) -> io::Result<Self> {
        Self::of("correio", "correio", server)
    }

    pub(crate) fn of(user: &str, database: &str, server: &Postgres) -> io::Result<Self> {
        let stream = TcpStream::connect(server.address())?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut conversation = Self(stream);
        let words = format!("user\0{user}\0database\0{database}\0\0");
        let mut start_up = ((8 + words.len()) as u32).to_be_bytes().to_vec();
        start_up.extend((3_u32 << 16).to_be_bytes());
        start_up.extend(words.as_bytes());
        conversation.0.write_all(&start_up)?;
        let (kind, body) = conversation.hear()?;
        if (kind, body.as_slice()) != (b'R', &[0; 4]) {
            return Err(io::Error::other(String::from_utf8_lossy(&body).replace('\0', " ")));
        }
        conversation.answer()?;
        Ok(conversation)
    }

    /// Says an SQL statement, and gives back the first column of each row.
    pub(crate) fn say(&mut self, statement: &str) -> io::Result<Vec<String>> {
        self.ask(statement)?;
        self.answer()
    }

    /// Says it without waiting for the answer.
    pub(crate) fn ask(&mut self, statement: &str) -> io::Result<()> {
        let mut query = vec![b'Q'];
        query.extend(((5 + statement.len()) as u32).to_be_bytes());
        query.extend(statement.as_bytes());
        query.push(0);
        self.0.write_all(&query)
    }

    /// Hears until the server is ready for more.
    pub(crate) fn answer(&mut self) -> io::Result<Vec<String>> {
        let mut rows = Vec::new();
        loop {
            let (kind, body) = self.hear()?;
            match kind {
                b'Z' => return Ok(rows),
                b'E' => return Err(io::Error::other(String::from_utf8_lossy(&body).replace('\0', " "))),
                b'D' => {
                    let size = u32::from_be_bytes([body[2], body[3], body[4], body[5]]) as usize;
                    rows.push(String::from_utf8_lossy(&body[6..6 + size]).into_owned());
                }
                _ => {}
            }
        }
    }

    /// Whether the server says something within this time.
    pub(crate) fn is_answered_within(&self, time: Duration) -> bool {
        self.0.set_read_timeout(Some(time)).expect("a deadline");
        let heard = self.0.peek(&mut [0]).is_ok();
        self.0.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
        heard
    }

    fn hear(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.0.read_exact(&mut head)?;
        let size = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; size.checked_sub(4).filter(|size| *size < 1 << 20).expect("a size")];
        self.0.read_exact(&mut body)?;
        Ok((head[0], body))
    }
}
