//! `fstrm_capture` as a collector of dnstap, and `dnstap-read` as the reader of what it wrote.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use muster::dns::tap::{
    frame_streams::Control,
    protobuf::{Dnstap, Message, MessageType, SocketProtocol},
};
use prost::Message as _;

use super::{
    process::{self, Finish},
    program::Program,
    skip, wait,
};

/// Reports whether both programs are installed; if not, skips `test`.
pub fn installed(test: &str) -> bool {
    skip::tool(test, "fstrm_capture", "fstrm-bin") && skip::tool(test, "dnstap-read", "bind9-dnsutils")
}

/// Running collector.
pub struct Collector {
    program: Program,
    file: PathBuf,
}

/// What an ended collector has received.
pub struct Recording {
    file: PathBuf,
}

/// A message as `dnstap-read` shows it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The fields of the frame and of the message.
    pub fields: BTreeMap<String, String>,
    /// The DNS message.
    pub text: String,
}

impl Collector {
    /// Starts a collector at a socket; what it receives goes to a file beside the socket.
    pub fn start(socket: &Path) -> Self {
        Self::of_type(socket, "protobuf:dnstap.Dnstap")
    }

    /// Starts a collector of another content type.
    pub fn of_type(socket: &Path, content_type: &str) -> Self {
        let file = socket.with_extension("dnstap");
        let mut command = process::command("fstrm_capture");
        command.args(["-t", content_type, "-u"]).arg(socket).arg("-w").arg(&file);
        // That of a killed collector.
        let _ = fs::remove_file(socket);
        let program = Program::start(command, socket.parent().unwrap());
        wait::until("the socket of the collector", || socket.exists());
        Self { program, file }
    }

    /// Returns the running program.
    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// Ends the collector and returns what it received.
    pub fn end(mut self) -> Recording {
        self.program.end();
        Recording { file: self.file }
    }
}

impl Recording {
    /// Returns the messages as `dnstap-read` shows them.
    pub fn seen(&self) -> Vec<Seen> {
        let output = process::command("dnstap-read").arg("-y").arg(&self.file).finish();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text.split("---\n").filter(|one| one.contains("type: MESSAGE")).map(Seen::parse).collect()
    }

    /// Returns the decoded messages, with what `dnstap-read` does not show: encrypted transports and nanoseconds.
    pub fn messages(&self) -> Vec<Message> {
        let octets = fs::read(&self.file).unwrap();
        let (mut messages, mut rest) = (Vec::new(), &octets[..]);
        while !rest.is_empty() {
            if let Ok(Some((_, len))) = Control::parse(rest) {
                rest = &rest[len..];
                continue;
            }
            let (length, tail) = rest.split_first_chunk().unwrap();
            let (frame, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
            messages.push(Dnstap::decode(frame).unwrap().message.unwrap());
            rest = tail;
        }
        messages
    }

    /// Returns type and transport of each message.
    pub fn transports(&self) -> Vec<String> {
        let shown = |message: Message| {
            let (kind, protocol) = (MessageType::try_from(message.r#type), message.socket_protocol.unwrap());
            format!("{:?} {:?}", kind.unwrap(), SocketProtocol::try_from(protocol).unwrap())
        };
        self.messages().into_iter().map(shown).collect()
    }
}

impl Seen {
    fn parse(text: &str) -> Self {
        let (head, message) = text.split_once("_message: |").unwrap_or((text, ""));
        let mut fields = BTreeMap::new();
        for line in head.lines() {
            // The type of the frame comes first, and that of the message replaces it.
            if let Some((name, value)) = line.split_once(": ").filter(|(name, _)| !name.starts_with("    ")) {
                fields.insert(name.trim().to_owned(), value.trim_matches('"').to_owned());
            }
        }
        Self { fields, text: message.to_owned() }
    }

    /// Returns a field; empty if it is missing.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// Returns the type, the transport and the address families of the message, and the queried name and type.
    pub fn shown(&self) -> String {
        let question = self.text.split_once(";; QUESTION SECTION:\n").map_or("", |(_, rest)| rest);
        let question: Vec<&str> =
            question.lines().next().unwrap_or_default().trim_start_matches([' ', ';']).split_whitespace().collect();
        let question = question.join(" ").to_lowercase();
        format!("{} {} {question}", self.field("type"), self.field("socket_protocol"))
    }
}
