//! Stand-in for the engine.
pub(crate) struct Engine;
pub(crate) enum Next {
    Read,
    Write,
    Close,
}
pub(crate) struct Fed {
    pub(crate) consumed: usize,
    pub(crate) next: Next,
}
pub(crate) enum Transport {
    Tcp,
    Udp,
}
pub(crate) trait Out {
    fn room(&self) -> usize;
    fn put(&mut self, bytes: &[u8]);
}
pub(crate) struct Session<'e> {
    _engine: &'e Engine,
}
impl<'e> Session<'e> {
    pub(crate) fn new(engine: &'e Engine, _t: Transport) -> Self {
        Session { _engine: engine }
    }
    pub(crate) fn feed(&mut self, input: &[u8], out: &mut impl Out) -> Fed {
        let mut consumed = 0;
        for line in input.split_inclusive(|b| *b == b'\n') {
            if line.last() != Some(&b'\n') {
                break;
            }
            if out.room() < line.len() + 16 {
                return Fed {
                    consumed,
                    next: Next::Write,
                };
            }
            consumed += line.len();
            if line.starts_with(b"quit") {
                return Fed {
                    consumed,
                    next: Next::Close,
                };
            }
            if line.starts_with(b"version") {
                out.put(b"VERSION 1.6.38\r\n");
                continue;
            }
            out.put(line);
        }
        Fed {
            consumed,
            next: Next::Read,
        }
    }
}
pub(crate) const DATAGRAM_MAX: usize = 1400;
#[allow(dead_code)]
pub(crate) enum Verdict {
    Answer,
    Silent,
    Drop,
    Pass,
}
#[derive(Default)]
pub(crate) struct Plan {
    n: u16,
    id: [u8; 2],
}
impl Plan {
    pub(crate) fn len(&self) -> usize {
        if self.n == 1 {
            8 + 5
        } else {
            self.n as usize * 1400
        }
    }
    pub(crate) fn datagrams(&self) -> u16 {
        self.n
    }
    pub(crate) fn write(&self, i: u16, buf: &mut [u8]) -> usize {
        let head = [self.id[0], self.id[1], 0, i as u8, 0, self.n as u8, 0, 0];
        let mut n = 0;
        for (to, from) in buf
            .iter_mut()
            .zip(head.iter().copied().chain(core::iter::repeat(b'x')))
        {
            *to = from;
            n += 1;
        }
        if self.n == 1 {
            for (to, from) in buf.iter_mut().skip(8).zip(b"END\r\n") {
                *to = *from;
            }
        }
        n
    }
}
impl Engine {
    pub(crate) fn plan(&self, payload: &[u8], plan: &mut Plan) -> Verdict {
        let [a, b, _, _, _, _, _, _, rest @ ..] = payload else {
            return Verdict::Drop;
        };
        plan.id = [*a, *b];
        if rest.starts_with(b"get ") {
            plan.n = 1;
            Verdict::Answer
        } else if rest.starts_with(b"many ") {
            plan.n = 5;
            Verdict::Answer
        } else {
            Verdict::Pass
        }
    }
}
