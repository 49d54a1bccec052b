//! Deadlines of a connection.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use prometheus::IntCounter;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{Limits, Visit};

/// A stream that fails when its peer misses a deadline.
pub(super) struct Timed<S> {
    stream: S,
    visit: Visit,
    limits: Limits,
    /// Counts missed deadlines.
    passed: IntCounter,
    /// Set while a read is pending.
    reading: Option<Pin<Box<Sleep>>>,
    /// Set while a write is pending.
    writing: Option<Pin<Box<Sleep>>>,
}

impl<S> Timed<S> {
    pub(super) fn new(stream: S, visit: Visit, limits: Limits, passed: IntCounter) -> Self {
        Self { stream, visit, limits, passed, reading: None, writing: None }
    }

    /// Fails a pending read whose deadline has passed.
    fn read_deadline(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(at) = self.visit.places.deadline(self.visit.number) else { return Poll::Pending };
        let timer = self.reading.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(context).map(|()| self.late())
    }

    /// Fails a write that has been pending for too long.
    fn write_deadline<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.writing = None;
            return written;
        }
        let stall = self.limits.stall;
        let timer = self.writing.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + stall)));
        match timer.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(self.late()),
            Poll::Pending => Poll::Pending,
        }
    }

    fn late<T>(&self) -> io::Result<T> {
        self.passed.inc();
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, into) {
            Poll::Ready(read) => {
                if into.filled().len() > before {
                    self.visit.places.heard(self.visit.number, Instant::now());
                }
                Poll::Ready(read)
            }
            Poll::Pending => self.read_deadline(context),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, from);
        if written.is_ready() {
            self.visit.places.spoke(self.visit.number, Instant::now());
        }
        self.write_deadline(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.write_deadline(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(context);
        self.write_deadline(context, ended)
    }
}
