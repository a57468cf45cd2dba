// SPDX-License-Identifier: GPL-2.0
/*
 * Makes payload unreadable to the CPU, as that is which a network card has put into, or takes from,
 * the memory of another device. What was there is replaced by net_iovs, which have no page.
 *
 * send: a file descriptor of the writer's, of a TCP socket: what it has not sent yet.
 * receive: a port: what arrives for it in the writer's network namespace; 0: no more.
 * listed: whether that then is in the list of fragments of a buffer which is readable itself.
 */
#include <linux/ip.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/nsproxy.h>
#include <linux/skbuff.h>
#include <net/net_namespace.h>
#include <net/netmem.h>
#include <net/tcp.h>

/* Not of the kind that is counted. */
static struct net_iov nowhere = { .type = NET_IOV_IOURING };

static u16 port;
static struct net *net;
static bool listed;
module_param(listed, bool, 0600);
MODULE_PARM_DESC(listed, "into the list of fragments");

/* The frags of @skb, which nobody else has. */
static void make_unreadable(struct sk_buff *skb)
{
	for (int i = 0; i < skb_shinfo(skb)->nr_frags; i++) {
		skb_frag_t *frag = &skb_shinfo(skb)->frags[i];
		struct page *page = skb_frag_page(frag);

		if (!page)
			continue;
		skb_frag_fill_netmem_desc(frag, net_iov_to_netmem(&nowhere), skb_frag_off(frag),
					  skb_frag_size(frag));
		put_page(page);
	}
	skb->unreadable = 1;
}

/* Moves the frags of @skb into another buffer behind it. */
static bool move_to_list(struct sk_buff *skb)
{
	struct sk_buff *behind = alloc_skb(0, GFP_ATOMIC);
	struct skb_shared_info *from = skb_shinfo(skb), *to;

	if (!behind)
		return false;
	to = skb_shinfo(behind);
	memcpy(to->frags, from->frags, from->nr_frags * sizeof(*to->frags));
	to->nr_frags = from->nr_frags;
	behind->len = skb->data_len;
	behind->data_len = skb->data_len;
	from->nr_frags = 0;
	from->frag_list = behind;
	make_unreadable(behind);
	return true;
}

static unsigned int received(void *priv, struct sk_buff *skb, const struct nf_hook_state *state)
{
	struct tcphdr buffer, *th;

	th = skb_header_pointer(skb, skb_transport_offset(skb), sizeof(buffer), &buffer);
	if (!th || ntohs(th->dest) != READ_ONCE(port) || !skb_shinfo(skb)->nr_frags)
		return NF_ACCEPT;
	/* What the sender may have to send again, and a tap, have the same frags. */
	if (skb_unclone(skb, GFP_ATOMIC))
		return NF_DROP;
	if (listed) {
		if (!move_to_list(skb))
			return NF_DROP;
	} else {
		make_unreadable(skb);
	}
	/* As by the card, since nobody else can. */
	skb->ip_summed = CHECKSUM_UNNECESSARY;
	return NF_ACCEPT;
}

static const struct nf_hook_ops hooks[] = {
	{ .hook = received, .pf = NFPROTO_IPV4, .hooknum = NF_INET_LOCAL_IN },
	{ .hook = received, .pf = NFPROTO_IPV6, .hooknum = NF_INET_LOCAL_IN },
};

static void stop(void)
{
	if (!net)
		return;
	nf_unregister_net_hooks(net, hooks, ARRAY_SIZE(hooks));
	put_net(net);
	net = NULL;
}

static int receive_set(const char *value, const struct kernel_param *param)
{
	int err;
	u16 new;

	err = kstrtou16(value, 0, &new);
	if (err)
		return err;
	stop();
	WRITE_ONCE(port, new);
	if (!new)
		return 0;
	net = get_net(current->nsproxy->net_ns);
	err = nf_register_net_hooks(net, hooks, ARRAY_SIZE(hooks));
	if (err) {
		put_net(net);
		net = NULL;
	}
	return err;
}

static const struct kernel_param_ops receive_ops = { .set = receive_set };
module_param_cb(receive, &receive_ops, NULL, 0200);
MODULE_PARM_DESC(receive, "a port of the writer's network namespace; 0: none");

static int send_set(const char *value, const struct kernel_param *param)
{
	struct socket *sock;
	struct sk_buff *skb;
	int fd, err;

	err = kstrtoint(value, 0, &fd);
	if (err)
		return err;
	sock = sockfd_lookup(fd, &err);
	if (!sock)
		return err;
	lock_sock(sock->sk);
	err = skb_queue_empty(&sock->sk->sk_write_queue) ? -ENODATA : 0;
	skb_queue_walk(&sock->sk->sk_write_queue, skb)
		make_unreadable(skb);
	release_sock(sock->sk);
	sockfd_put(sock);
	return err;
}

static const struct kernel_param_ops send_ops = { .set = send_set };
module_param_cb(send, &send_ops, NULL, 0200);
MODULE_PARM_DESC(send, "a TCP socket");

static int __init unreadable_init(void)
{
	return 0;
}
module_init(unreadable_init);

static void __exit unreadable_exit(void)
{
	stop();
}
module_exit(unreadable_exit);

MODULE_DESCRIPTION("Makes payload unreadable to the CPU, for tests");
MODULE_LICENSE("GPL");
