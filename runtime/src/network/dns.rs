//! The name server of a network: on its gateway address, on every host that has the network.
//!
//! It answers for the names of the network's containers, wherever they run, and for their addresses.
//! All else it passes on as it came, to the resolvers of this host or to those that the asking
//! container was given. A question is passed on once to each resolver in turn.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, RwLock},
    time::Duration,
};

use godwit_types::NetworkTable;
use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{
        RData, Record, RecordType,
        rdata::{A, PTR},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};

const PORT: u16 = 53;
/// Seconds for which an answer is good: a container may be replaced at any time.
const TTL: u32 = 5;
/// The longest message over UDP that is taken, with its extensions.
const DATAGRAM: usize = 4096;
/// Questions that are passed on at a time; more are dropped, and asked again.
const WAITING: usize = 256;
/// Connections at a time.
const CONNECTIONS: usize = 64;
const UPSTREAM: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(10);

/// Who is called what.
#[derive(Default)]
pub struct Names {
    known: RwLock<Known>,
    /// Resolvers of containers that were given some, by the address that asks.
    given: RwLock<HashMap<Ipv4Addr, Vec<IpAddr>>>,
}

#[derive(Default)]
struct Known {
    /// In lower case, without the last dot.
    addresses: HashMap<String, Vec<Ipv4Addr>>,
    names: HashMap<Ipv4Addr, String>,
}

impl Names {
    pub fn set(&self, table: &NetworkTable) {
        let mut known = Known::default();
        for endpoint in &table.endpoints {
            if let Some(first) = endpoint.names.first() {
                let name = format!("{first}.{}", table.network.name);
                known.names.insert(endpoint.address, name);
            }
            for name in &endpoint.names {
                let name = name.to_ascii_lowercase();
                // Also with the network's name behind it.
                let long = format!("{name}.{}", table.network.name).to_ascii_lowercase();
                for name in [name, long] {
                    let addresses = known.addresses.entry(name).or_default();
                    if !addresses.contains(&endpoint.address) {
                        addresses.push(endpoint.address);
                    }
                }
            }
        }
        *self.known.write().expect("no holder panics") = known;
    }

    /// The resolvers of the container at this address. None: this host's.
    pub fn give(&self, address: Ipv4Addr, resolvers: &[IpAddr]) {
        let mut given = self.given.write().expect("no holder panics");
        match resolvers {
            [] => drop(given.remove(&address)),
            some => drop(given.insert(address, some.to_vec())),
        }
    }

    /// The answer to a question about a container; None: it is about something else.
    fn answer(&self, question: &Message) -> Option<Message> {
        let [query] = question.queries() else {
            return None;
        };
        let name = query.name().to_ascii().to_ascii_lowercase();
        let name = name.trim_end_matches('.');
        let known = self.known.read().expect("no holder panics");
        let record = |data| Record::from_rdata(query.name().clone(), TTL, data);
        let records: Vec<Record> = if query.query_type() == RecordType::PTR {
            let name = known.names.get(&address_of(name)?)?;
            vec![record(RData::PTR(PTR(format!("{name}.").parse().ok()?)))]
        } else {
            let addresses = known.addresses.get(name)?;
            match query.query_type() {
                RecordType::A | RecordType::ANY => addresses
                    .iter()
                    .map(|address| record(RData::A(A(*address))))
                    .collect(),
                // It is there, and has nothing of this kind.
                _ => Vec::new(),
            }
        };
        let mut answer = reply_to(question, ResponseCode::NoError);
        answer.set_authoritative(true);
        answer.add_queries(question.queries().to_vec());
        answer.add_answers(records);
        Some(answer)
    }

    fn resolvers(&self, from: IpAddr) -> Vec<IpAddr> {
        if let IpAddr::V4(from) = from
            && let Some(given) = self.given.read().expect("no holder panics").get(&from)
        {
            return given.clone();
        }
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        of_host(&text)
    }
}

fn of_host(resolv: &str) -> Vec<IpAddr> {
    let servers = resolv.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok())?
    });
    servers.take(3).collect()
}

/// `4.3.2.1.in-addr.arpa`
fn address_of(name: &str) -> Option<Ipv4Addr> {
    let digits = name.strip_suffix(".in-addr.arpa")?;
    let mut parts: Vec<&str> = digits.split('.').collect();
    parts.reverse();
    parts.join(".").parse().ok()
}

fn reply_to(question: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::new();
    reply
        .set_id(question.id())
        .set_message_type(MessageType::Response)
        .set_op_code(OpCode::Query)
        .set_recursion_desired(question.recursion_desired())
        .set_recursion_available(true)
        .set_response_code(code);
    reply
}

/// Ends when it is dropped.
pub struct Server {
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Serves on this address. An error: somebody else does.
pub async fn start(address: Ipv4Addr, names: Arc<Names>) -> io::Result<Server> {
    let datagrams = Arc::new(UdpSocket::bind((address, PORT)).await?);
    let listener = TcpListener::bind((address, PORT)).await?;
    let over_udp = tokio::spawn(udp(datagrams, names.clone()));
    let over_tcp = tokio::spawn(tcp(listener, names));
    Ok(Server {
        tasks: [over_udp, over_tcp],
    })
}

async fn udp(socket: Arc<UdpSocket>, names: Arc<Names>) {
    let waiting = Arc::new(Semaphore::new(WAITING));
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            // Of a packet before it that found nobody.
            continue;
        };
        let Ok(place) = waiting.clone().try_acquire_owned() else {
            continue;
        };
        let question = buffer[..length].to_vec();
        let (socket, names) = (socket.clone(), names.clone());
        tokio::spawn(async move {
            if let Some(answer) = answer(&names, &question, from.ip(), false).await {
                let _ = socket.send_to(&answer, from).await;
            }
            drop(place);
        });
    }
}

async fn tcp(listener: TcpListener, names: Arc<Names>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let names = names.clone();
        tokio::spawn(async move {
            let _ = connection(stream, from.ip(), &names).await;
            drop(place);
        });
    }
}

async fn connection(mut stream: TcpStream, from: IpAddr, names: &Names) -> io::Result<()> {
    loop {
        let question = timeout(IDLE, read_message(&mut stream)).await??;
        let Some(answer) = answer(names, &question, from, true).await else {
            return Ok(());
        };
        write_message(&mut stream, &answer).await?;
    }
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(message).await
}

/// None: what came is no question, and gets no answer.
async fn answer(names: &Names, bytes: &[u8], from: IpAddr, over_tcp: bool) -> Option<Vec<u8>> {
    let question = Message::from_vec(bytes).ok()?;
    let is_question =
        question.message_type() == MessageType::Query && question.op_code() == OpCode::Query;
    if !is_question {
        return None;
    }
    if let Some(answer) = names.answer(&question) {
        return answer.to_vec().ok();
    }
    for resolver in names.resolvers(from) {
        let to = SocketAddr::from((resolver, PORT));
        let asked = async {
            match over_tcp {
                true => ask_over_tcp(to, bytes).await,
                false => ask_over_udp(to, bytes).await,
            }
        };
        if let Ok(Ok(answer)) = timeout(UPSTREAM, asked).await {
            return Some(answer);
        }
    }
    let mut failure = reply_to(&question, ResponseCode::ServFail);
    failure.add_queries(question.queries().to_vec());
    failure.to_vec().ok()
}

async fn ask_over_udp(to: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A port of its own for each, so that nobody else's answer is taken.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if buffer.get(..2) == question.get(..2) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_over_tcp(to: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to).await?;
    write_message(&mut stream, question).await?;
    read_message(&mut stream).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_types::{ContainerId, Endpoint, NetworkSpec};
    use hickory_proto::{op::Query, rr::Name};

    fn names() -> Arc<Names> {
        let network = NetworkSpec {
            name: "front".parse().unwrap(),
            vni: 7,
            subnet: "10.9.0.0/16".parse().unwrap(),
        };
        let endpoint = |last: u8, names: &[&str]| Endpoint {
            container: ContainerId::from_bytes([last; 32]),
            address: Ipv4Addr::new(10, 9, 0, last),
            host: "h1".parse().unwrap(),
            underlay: Ipv4Addr::LOCALHOST,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let table = NetworkTable {
            network,
            version: 1,
            endpoints: vec![endpoint(2, &["Web", "www"]), endpoint(3, &["web2", "www"])],
        };
        let names = Names::default();
        names.set(&table);
        Arc::new(names)
    }

    fn question(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::new();
        message.set_id(77);
        message.add_query(Query::query(name.parse::<Name>().unwrap(), kind));
        message.to_vec().unwrap()
    }

    fn ask(names: &Names, name: &str, kind: RecordType) -> Option<Vec<String>> {
        let question = Message::from_vec(&question(name, kind)).unwrap();
        let answer = names.answer(&question)?;
        assert_eq!(answer.id(), 77);
        Some(
            answer
                .answers()
                .iter()
                .map(|r| r.data().to_string())
                .collect(),
        )
    }

    #[test]
    fn containers_are_found_by_every_name_and_by_their_address() {
        let names = names();
        let one = vec!["10.9.0.2".to_owned()];
        assert_eq!(ask(&names, "web.", RecordType::A), Some(one.clone()));
        assert_eq!(ask(&names, "WEB.front.", RecordType::A), Some(one));
        let both = ask(&names, "www.", RecordType::A).unwrap();
        assert_eq!(both, ["10.9.0.2", "10.9.0.3"]);
        assert_eq!(ask(&names, "web.", RecordType::AAAA), Some(vec![]));
        let name = ask(&names, "3.0.9.10.in-addr.arpa.", RecordType::PTR);
        assert_eq!(name, Some(vec!["web2.front.".to_owned()]));
        assert_eq!(ask(&names, "example.org.", RecordType::A), None);
    }

    #[test]
    fn the_hosts_resolvers_are_read_from_its_file() {
        let text = "# x\nnameserver 192.0.2.1\nsearch a\nnameserver fd00::1\nnameserver x\n";
        let found = of_host(text);
        assert_eq!(
            found,
            ["192.0.2.1", "fd00::1"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
    }

    #[tokio::test]
    async fn a_question_gets_an_answer_and_what_is_none_gets_nothing() {
        let names = names();
        let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let asked = question("web.", RecordType::A);
        for over_tcp in [false, true] {
            let said = answer(&names, &asked, from, over_tcp).await.unwrap();
            assert_eq!(Message::from_vec(&said).unwrap().answers().len(), 1);
            assert_eq!(answer(&names, &said, from, over_tcp).await, None);
            assert_eq!(answer(&names, b"junk", from, over_tcp).await, None);
        }
        // Nobody to ask: said at once, and not by silence.
        names.give(Ipv4Addr::LOCALHOST, &["127.0.0.77".parse().unwrap()]);
        let asked = question("example.org.", RecordType::A);
        let said = answer(&names, &asked, from, true).await.unwrap();
        let said = Message::from_vec(&said).unwrap();
        assert_eq!(said.response_code(), ResponseCode::ServFail);
    }
}
