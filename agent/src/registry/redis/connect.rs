//! Getting into a Redis.

use std::time::Duration;

use redis::{Client, Connection, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, RedisResult};

use crate::config::RedisAddress;

/// How long a connection may take to come.
const CONNECT: Duration = Duration::from_secs(2);
/// How long an answer may take: longer than what [`super::script`] does for the largest batch.
const ANSWER: Duration = Duration::from_secs(5);

/// Connects, and logs in.
pub(super) fn connect(address: &RedisAddress) -> RedisResult<Connection> {
    let RedisAddress { host, port, database, username, password } = address;
    let mut settings = RedisConnectionInfo::default().set_db((*database).into());
    if let Some(username) = username {
        settings = settings.set_username(username);
    }
    if let Some(password) = password {
        settings = settings.set_password(password);
    }
    let info: ConnectionInfo = ConnectionAddr::Tcp(host.clone(), *port).into_connection_info()?;
    let connection = Client::open(info.set_redis_settings(settings))?.get_connection_with_timeout(CONNECT)?;
    connection.set_read_timeout(Some(ANSWER))?;
    connection.set_write_timeout(Some(ANSWER))?;
    Ok(connection)
}
