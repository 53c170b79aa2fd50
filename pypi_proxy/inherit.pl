# Get the listening socket from the container that holds the port (pypi_server/port.py), then become nginx, which inherits it.
# Perl is in every Debian; its core has no call for a socket that comes by a socket, so that recvmsg(2) is made by hand.
use strict;
use warnings;
use POSIX ();
use Socket;

my ($path, @command) = @ARGV;
my %recvmsg = (x86_64 => 47, aarch64 => 212, riscv64 => 212);
my $machine = (POSIX::uname())[4];
my $call = $recvmsg{$machine} or die "inherit.pl: the number of recvmsg on $machine is not known\n";

socket(my $desk, AF_UNIX, SOCK_STREAM, 0) or die "inherit.pl: $!\n";
select(undef, undef, undef, 0.1) until connect($desk, sockaddr_un($path));

# struct iovec of one byte; room for struct cmsghdr with one int; struct msghdr, as on all Linux of 64 bits.
my ($byte, $control) = ("\0", "\0" x 24);
my $iovec = pack('P Q', $byte, 1);
my $message = pack('Q L x4 P Q P Q L x4', 0, 0, $iovec, 1, $control, length $control, 0);
syscall($call, fileno($desk), $message, 0) > 0 or die "inherit.pl: no socket came: $!\n";
my $socket = unpack('x16 l', $control);
$socket > 2 or die "inherit.pl: no socket came\n";

# The holder never says more. The end of the connection is its own end: a new one will have another socket.
my $nginx = $$;
defined(my $watch = fork) or die "inherit.pl: $!\n";
if (!$watch) {
    POSIX::close($socket);
    sysread($desk, my $nothing, 1);
    kill QUIT => $nginx;
    exit;
}
$ENV{NGINX} = "$socket;";
exec @command or die "inherit.pl: $command[0]: $!\n";
