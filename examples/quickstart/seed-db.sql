--
-- PostgreSQL database dump
--

-- Dumped from database version 15
-- Dumped by pg_dump version 15

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: seeddb; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA seeddb;


--
-- Name: SCHEMA seeddb; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON SCHEMA seeddb IS '{"made by": "seeddb dump", "plan": "quickstart-shop", "profile": "demo", "tier": "demo"}';


--
-- Name: pg_trgm; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;


--
-- Name: EXTENSION pg_trgm; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON EXTENSION pg_trgm IS 'text similarity measurement and index searching based on trigrams';


--
-- Name: order_status; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public.order_status AS ENUM (
    'placed',
    'paid',
    'cancelled'
);


SET default_table_access_method = heap;

--
-- Name: addresses; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.addresses (
    id integer NOT NULL,
    customer_id integer NOT NULL,
    street character varying(200) NOT NULL,
    city character varying(100) NOT NULL,
    postcode character varying(20) NOT NULL
);


--
-- Name: addresses_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.addresses_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: addresses_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.addresses_id_seq OWNED BY public.addresses.id;


--
-- Name: alembic_version; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);


--
-- Name: categories; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.categories (
    id integer NOT NULL,
    slug character varying(50) NOT NULL,
    name character varying(100) NOT NULL
);


--
-- Name: categories_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.categories_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: categories_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.categories_id_seq OWNED BY public.categories.id;


--
-- Name: customers; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.customers (
    id integer NOT NULL,
    email character varying(200) NOT NULL,
    name character varying(100) NOT NULL,
    joined_on date NOT NULL
);


--
-- Name: customers_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.customers_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: customers_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.customers_id_seq OWNED BY public.customers.id;


--
-- Name: order_lines; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.order_lines (
    id integer NOT NULL,
    order_id integer NOT NULL,
    product_id integer NOT NULL,
    quantity integer NOT NULL,
    unit_price numeric(10,2) NOT NULL,
    CONSTRAINT ck_order_lines_quantity_positive CHECK ((quantity > 0))
);


--
-- Name: order_lines_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.order_lines_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: order_lines_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.order_lines_id_seq OWNED BY public.order_lines.id;


--
-- Name: order_numbers; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.order_numbers
    START WITH 1000
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: orders; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.orders (
    id integer NOT NULL,
    number integer DEFAULT nextval('public.order_numbers'::regclass) NOT NULL,
    customer_id integer NOT NULL,
    store_id integer NOT NULL,
    status public.order_status DEFAULT 'placed'::public.order_status NOT NULL,
    placed_at timestamp with time zone DEFAULT now() NOT NULL,
    cancelled_at timestamp with time zone
);


--
-- Name: orders_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.orders_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: orders_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.orders_id_seq OWNED BY public.orders.id;


--
-- Name: payments; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.payments (
    id integer NOT NULL,
    order_id integer NOT NULL,
    amount numeric(10,2) NOT NULL,
    paid_at timestamp with time zone DEFAULT now() NOT NULL
);


--
-- Name: payments_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.payments_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: payments_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.payments_id_seq OWNED BY public.payments.id;


--
-- Name: products; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.products (
    id integer NOT NULL,
    sku character varying(20) NOT NULL,
    name character varying(100) NOT NULL,
    price numeric(10,2) NOT NULL,
    category_id integer NOT NULL,
    CONSTRAINT ck_products_price_not_negative CHECK ((price >= (0)::numeric))
);


--
-- Name: products_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.products_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: products_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.products_id_seq OWNED BY public.products.id;


--
-- Name: roles; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.roles (
    id integer NOT NULL,
    name character varying(30) NOT NULL
);


--
-- Name: roles_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.roles_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: roles_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.roles_id_seq OWNED BY public.roles.id;


--
-- Name: staff_users; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.staff_users (
    id integer NOT NULL,
    email character varying(200) NOT NULL,
    name character varying(100) NOT NULL,
    role_id integer NOT NULL
);


--
-- Name: staff_users_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.staff_users_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: staff_users_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.staff_users_id_seq OWNED BY public.staff_users.id;


--
-- Name: stock_levels; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.stock_levels (
    store_id integer NOT NULL,
    product_id integer NOT NULL,
    quantity integer NOT NULL,
    CONSTRAINT ck_stock_levels_quantity_not_negative CHECK ((quantity >= 0))
);


--
-- Name: stores; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.stores (
    id integer NOT NULL,
    code character varying(10) NOT NULL,
    city character varying(100) NOT NULL
);


--
-- Name: stores_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.stores_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: stores_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.stores_id_seq OWNED BY public.stores.id;


--
-- Name: seeddb_marker; Type: TABLE; Schema: seeddb; Owner: -
--

CREATE TABLE seeddb.seeddb_marker (
    one boolean DEFAULT true NOT NULL,
    fingerprint text NOT NULL,
    profile text NOT NULL,
    tier text NOT NULL,
    version text NOT NULL,
    environment text NOT NULL,
    applied_at timestamp with time zone,
    CONSTRAINT seeddb_marker_one_check CHECK (one)
);


--
-- Name: seeddb_step; Type: TABLE; Schema: seeddb; Owner: -
--

CREATE TABLE seeddb.seeddb_step (
    name text NOT NULL,
    digest text NOT NULL,
    finished boolean NOT NULL,
    applied_at timestamp with time zone,
    numbers text
);


--
-- Name: addresses id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.addresses ALTER COLUMN id SET DEFAULT nextval('public.addresses_id_seq'::regclass);


--
-- Name: categories id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.categories ALTER COLUMN id SET DEFAULT nextval('public.categories_id_seq'::regclass);


--
-- Name: customers id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.customers ALTER COLUMN id SET DEFAULT nextval('public.customers_id_seq'::regclass);


--
-- Name: order_lines id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.order_lines ALTER COLUMN id SET DEFAULT nextval('public.order_lines_id_seq'::regclass);


--
-- Name: orders id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.orders ALTER COLUMN id SET DEFAULT nextval('public.orders_id_seq'::regclass);


--
-- Name: payments id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.payments ALTER COLUMN id SET DEFAULT nextval('public.payments_id_seq'::regclass);


--
-- Name: products id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.products ALTER COLUMN id SET DEFAULT nextval('public.products_id_seq'::regclass);


--
-- Name: roles id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.roles ALTER COLUMN id SET DEFAULT nextval('public.roles_id_seq'::regclass);


--
-- Name: staff_users id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.staff_users ALTER COLUMN id SET DEFAULT nextval('public.staff_users_id_seq'::regclass);


--
-- Name: stores id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.stores ALTER COLUMN id SET DEFAULT nextval('public.stores_id_seq'::regclass);


--
-- Data for Name: addresses; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.addresses (id, customer_id, street, city, postcode) FROM stdin;
1	1	451 John Junction	Bruceport	G02 9LF
2	2	Studio 4\nNigel Orchard	Tomlinsonmouth	E9S 8PH
3	3	Studio 7\nConnolly Valleys	West Glen	B68 5FG
4	4	Studio 03v\nValerie Terrace	South Barbara	G5S 8FN
5	5	754 Liam Estate	Davishaven	E4G 9ZD
6	6	Studio 93U\nWright Islands	Julianberg	HG29 5SJ
7	7	285 Wayne Oval	East Mohammedborough	DH0E 3RD
8	8	Flat 84t\nKyle Locks	North Andrewville	N0H 4JZ
9	9	9 Morris Burgs	South Katie	S4 0GG
10	10	4 Lee Glens	Shirleyburgh	E2 9YX
11	11	Studio 13\nClarke Grove	North Abbiestad	LN0B 9XU
12	12	113 Michael Lakes	North Dominic	E93 3ZF
13	13	Flat 97\nGerard Tunnel	Geraldhaven	DT4 5DD
14	14	Flat 15D\nThompson Drives	Palmerfort	DY5A 5GU
15	15	Studio 8\nTracey Course	Begumstad	W6 2QT
\.


--
-- Data for Name: alembic_version; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.alembic_version (version_num) FROM stdin;
0009
\.


--
-- Data for Name: categories; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.categories (id, slug, name) FROM stdin;
1	other	Everything else
2	tools	Tools
3	garden	Garden
4	kitchen	Kitchen
5	toys	Toys
\.


--
-- Data for Name: customers; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.customers (id, email, name, joined_on) FROM stdin;
1	customer1@mail.example	Amber Holmes	2024-01-01
2	customer2@mail.example	Michael Allen	2024-01-02
3	customer3@mail.example	Mary Marsh-Hopkins	2024-01-03
4	customer4@mail.example	Mrs Melanie Williams	2024-01-04
5	customer5@mail.example	Mr Terence Cole	2024-01-05
6	customer6@mail.example	Mr William Roberts	2024-01-06
7	customer7@mail.example	Stewart Evans	2024-01-07
8	customer8@mail.example	Miss Susan Cooke	2024-01-08
9	customer9@mail.example	Ian Dobson	2024-01-09
10	customer10@mail.example	Gareth Hudson	2024-01-10
11	customer11@mail.example	Miss Irene Mitchell	2024-01-11
12	customer12@mail.example	Deborah Hussain	2024-01-12
13	customer13@mail.example	Diane Ward	2024-01-13
14	customer14@mail.example	Dr Clive Morgan	2024-01-14
15	customer15@mail.example	Ms Ann McDonald	2024-01-15
\.


--
-- Data for Name: order_lines; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.order_lines (id, order_id, product_id, quantity, unit_price) FROM stdin;
1	1	6	2	70.18
2	1	3	3	43.93
3	1	8	2	155.90
4	2	3	1	43.93
5	2	11	2	192.09
6	2	1	1	80.45
7	3	10	3	9.81
8	3	7	1	155.18
9	3	1	3	80.45
10	4	3	3	43.93
11	4	8	1	155.90
12	4	12	1	163.84
13	5	7	3	155.18
14	5	3	3	43.93
15	5	1	2	80.45
16	6	6	3	70.18
17	6	3	1	43.93
18	6	10	3	9.81
19	7	8	3	155.90
20	7	10	1	9.81
21	7	9	2	50.70
22	8	10	1	9.81
23	8	8	1	155.90
24	8	5	2	182.67
25	9	5	2	182.67
26	9	9	1	50.70
27	9	3	1	43.93
28	10	4	3	127.79
29	10	3	1	43.93
30	10	11	2	192.09
31	11	9	1	50.70
32	11	11	3	192.09
33	11	12	1	163.84
34	12	7	2	155.18
35	12	11	2	192.09
36	12	2	3	118.06
37	13	3	3	43.93
38	13	8	1	155.90
39	13	11	2	192.09
40	14	6	3	70.18
41	14	8	2	155.90
42	14	1	2	80.45
43	15	3	2	43.93
44	15	6	2	70.18
45	15	2	2	118.06
46	16	5	3	182.67
47	16	8	1	155.90
48	16	7	2	155.18
49	17	7	1	155.18
50	17	11	1	192.09
51	17	10	1	9.81
52	18	4	1	127.79
53	18	10	2	9.81
54	18	9	1	50.70
55	19	7	3	155.18
56	19	3	3	43.93
57	19	6	3	70.18
58	20	10	1	9.81
59	20	6	2	70.18
60	20	3	3	43.93
61	21	6	1	70.18
62	21	11	2	192.09
63	21	7	1	155.18
64	22	11	2	192.09
65	22	2	2	118.06
66	22	7	3	155.18
67	23	5	1	182.67
68	23	10	2	9.81
69	23	4	2	127.79
70	24	6	1	70.18
71	24	1	3	80.45
72	24	12	2	163.84
73	25	11	1	192.09
74	25	8	2	155.90
75	25	3	3	43.93
76	26	7	1	155.18
77	26	11	1	192.09
78	26	5	1	182.67
79	27	4	2	127.79
80	27	8	2	155.90
81	27	11	2	192.09
82	28	4	2	127.79
83	28	9	3	50.70
84	28	5	2	182.67
85	29	4	3	127.79
86	29	8	3	155.90
87	29	10	1	9.81
88	30	3	3	43.93
89	30	1	1	80.45
90	30	8	3	155.90
\.


--
-- Data for Name: orders; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.orders (id, number, customer_id, store_id, status, placed_at, cancelled_at) FROM stdin;
1	1000	7	3	paid	2024-03-04 09:00:00+00	\N
2	1001	3	3	paid	2024-03-04 10:00:00+00	\N
3	1002	2	3	placed	2024-03-04 11:00:00+00	\N
4	1003	12	3	paid	2024-03-04 12:00:00+00	\N
5	1004	4	2	paid	2024-03-04 13:00:00+00	\N
6	1005	12	1	placed	2024-03-04 14:00:00+00	\N
7	1006	2	2	paid	2024-03-04 15:00:00+00	\N
8	1007	4	2	paid	2024-03-04 16:00:00+00	\N
9	1008	6	2	placed	2024-03-04 17:00:00+00	\N
10	1009	5	1	paid	2024-03-04 18:00:00+00	\N
11	1010	6	1	paid	2024-03-05 09:00:00+00	\N
12	1011	14	1	placed	2024-03-05 10:00:00+00	\N
13	1012	15	2	paid	2024-03-05 11:00:00+00	\N
14	1013	12	1	paid	2024-03-05 12:00:00+00	\N
15	1014	11	2	placed	2024-03-05 13:00:00+00	\N
16	1015	4	1	paid	2024-03-05 14:00:00+00	\N
17	1016	8	3	paid	2024-03-05 15:00:00+00	\N
18	1017	3	3	placed	2024-03-05 16:00:00+00	\N
19	1018	1	1	paid	2024-03-05 17:00:00+00	\N
20	1019	4	2	paid	2024-03-05 18:00:00+00	\N
21	1020	11	3	placed	2024-03-06 09:00:00+00	\N
22	1021	6	3	paid	2024-03-06 10:00:00+00	\N
23	1022	7	2	paid	2024-03-06 11:00:00+00	\N
24	1023	10	3	placed	2024-03-06 12:00:00+00	\N
25	1024	14	2	paid	2024-03-06 13:00:00+00	\N
26	1025	4	3	paid	2024-03-06 14:00:00+00	\N
27	1026	15	1	placed	2024-03-06 15:00:00+00	\N
28	1027	8	2	paid	2024-03-06 16:00:00+00	\N
29	1028	13	1	paid	2024-03-06 17:00:00+00	\N
30	1029	13	3	placed	2024-03-06 18:00:00+00	\N
\.


--
-- Data for Name: payments; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.payments (id, order_id, amount, paid_at) FROM stdin;
1	1	583.95	2024-03-04 09:00:00+00
2	2	508.56	2024-03-04 10:00:00+00
3	4	451.53	2024-03-04 12:00:00+00
4	5	758.23	2024-03-04 13:00:00+00
5	7	578.91	2024-03-04 15:00:00+00
6	8	531.05	2024-03-04 16:00:00+00
7	10	811.48	2024-03-04 18:00:00+00
8	11	790.81	2024-03-05 09:00:00+00
9	13	671.87	2024-03-05 11:00:00+00
10	14	683.24	2024-03-05 12:00:00+00
11	16	1014.27	2024-03-05 14:00:00+00
12	17	357.08	2024-03-05 15:00:00+00
13	19	807.87	2024-03-05 17:00:00+00
14	20	281.96	2024-03-05 18:00:00+00
15	22	1085.84	2024-03-06 10:00:00+00
16	23	457.87	2024-03-06 11:00:00+00
17	25	635.68	2024-03-06 13:00:00+00
18	26	529.94	2024-03-06 14:00:00+00
19	28	773.02	2024-03-06 16:00:00+00
20	29	860.88	2024-03-06 17:00:00+00
\.


--
-- Data for Name: products; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.products (id, sku, name, price, category_id) FROM stdin;
1	SKU-001	Claw hammer	80.45	2
2	SKU-002	Border spade	118.06	3
3	SKU-003	Copper kettle	43.93	4
4	SKU-004	Jigsaw puzzle	127.79	5
5	SKU-005	Hand saw	182.67	2
6	SKU-006	Watering can	70.18	3
7	SKU-007	Pepper mill	155.18	4
8	SKU-008	Rocking horse	155.90	5
9	SKU-009	Spirit level	50.70	2
10	SKU-010	Bird feeder	9.81	3
11	SKU-011	Salad bowl	192.09	4
12	SKU-012	Spinning top	163.84	5
\.


--
-- Data for Name: roles; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.roles (id, name) FROM stdin;
1	owner
2	clerk
3	auditor
\.


--
-- Data for Name: staff_users; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.staff_users (id, email, name, role_id) FROM stdin;
1	staff1@shop.example	Timothy Webb	1
2	staff2@shop.example	Janice Ahmed	2
3	staff3@shop.example	Barbara Cross-Wright	3
\.


--
-- Data for Name: stock_levels; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.stock_levels (store_id, product_id, quantity) FROM stdin;
1	1	20
1	2	20
1	3	20
1	4	20
1	5	20
1	6	20
1	7	20
1	8	20
1	9	20
1	10	20
1	11	20
1	12	20
2	1	20
2	2	20
2	3	20
2	4	20
2	5	20
2	6	20
2	7	20
2	8	20
2	9	20
2	10	20
2	11	20
2	12	20
3	1	20
3	2	20
3	3	20
3	4	20
3	5	20
3	6	20
3	7	20
3	8	20
3	9	20
3	10	20
3	11	20
3	12	20
\.


--
-- Data for Name: stores; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.stores (id, code, city) FROM stdin;
1	S01	Howefort
2	S02	Fletcherberg
3	S03	Russellmouth
\.


--
-- Data for Name: seeddb_marker; Type: TABLE DATA; Schema: seeddb; Owner: -
--

COPY seeddb.seeddb_marker (one, fingerprint, profile, tier, version, environment, applied_at) FROM stdin;
t	8e1aefdea45659051efc1b9bfec87295361114e38eb26af488f96b18718b157b	demo	demo	72939d5930b0		\N
\.


--
-- Data for Name: seeddb_step; Type: TABLE DATA; Schema: seeddb; Owner: -
--

COPY seeddb.seeddb_step (name, digest, finished, applied_at, numbers) FROM stdin;
migration 0001 Customers and their addresses. (0001_customers.py)	cf207e77a3634c2fa4f0b0eef9bcbc4acf4a9c478196c47143a1c07987cd0401	t	\N	\N
migration 0002 Stores, products, and how many of which lie where. (0002_stores_and_products.py)	9ee697742a2bc9be45cc285deb4a825abe40ebdaa43434bb9953a7be9eb962db	t	\N	\N
migration 0003 Orders, with numbers of their own that start at 1000. (0003_orders.py)	cc1a813284a3664beec00d310c9cc77c5928a95d68e2eca151e1e9c286e7ceda	t	\N	\N
migration 0004 Categories; the products that are there already go under "Everything else". (0004_categories.py)	d1519a270b0e2befc233ca1d0aedcc45177823cc2a7a9dd3d78c0da4382c191b	t	\N	\N
migration 0005 Payments. (0005_payments.py)	46e77ef71f295d3fa4688019876a4c12c475782c9d6b9c853f5258361086769b	t	\N	\N
migration 0006 Staff users and their roles. (0006_staff.py)	a02f6f7d5179a664719947b3561dd948a2d4a5ec6a0a7ec182ca54108dde294b	t	\N	\N
migration 0007 Search products by names that are nearly right. (0007_product_search.py)	5bd7c333b9939ed278148dea1d1b64e4f0d7d02cc5762a5ff9a8dab200b2a20a	t	\N	\N
migration 0008 An index for a customer's list of orders, made without stopping the shop. (0008_orders_by_customer.py)	90309d5842e255a947cb038f28ccd43f034a63a99dacc53d38329a93128e17cb	t	\N	\N
migration 0009 When an order was cancelled. (0009_cancelled_orders.py)	016ae4290c640f8e169418ddb10546255cb5d58d8f7cdf1142abbd4dda7d935c	t	\N	\N
seed shop.seeds:categories	8151572f73a84c1553204e5b1a808cac100e9e7f4373b0145a84b2673e0b5617	t	\N	\N
seed shop.seeds:customers	9e3fe3c725726cb61cc5cd56037a899bd45c15150a9d474c1c1c17ab49a6d8fd	t	\N	{"shop.factories:AddressFactory": [0, 15], "shop.factories:CustomerFactory": [0, 15]}
seed shop.seeds:orders	2aee28016dcc2718c34139ea1f92c108fca42021a5b02644ebda04f3d932e3bb	t	\N	{"shop.factories:OrderFactory": [0, 30], "shop.factories:OrderLineFactory": [0, 90]}
seed shop.seeds:products	21c4490a9148def528e7ef9341d203f0d2659a9a2ab9455265501c695a7f11f5	t	\N	{"shop.factories:ProductFactory": [0, 12]}
seed shop.seeds:roles	d6f818661c80d6c3a63b663b52d38dae2e6532295cbcc5388d799752ac3a0979	t	\N	\N
seed shop.seeds:staff	a7427f3d8dc72dbdb54a1597befa2a1726c1a8865d7d175c2ec48f02e3d6b448	t	\N	{"shop.factories:StaffUserFactory": [0, 3]}
seed shop.seeds:stores	fe333f06275b5a72579cec5ac92bf2c3bbd7800499f52e1a9f687e9aa0f0bb4d	t	\N	{"shop.factories:StoreFactory": [0, 3]}
\.


--
-- Name: addresses_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.addresses_id_seq', 15, true);


--
-- Name: categories_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.categories_id_seq', 5, true);


--
-- Name: customers_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.customers_id_seq', 15, true);


--
-- Name: order_lines_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.order_lines_id_seq', 90, true);


--
-- Name: order_numbers; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.order_numbers', 1029, true);


--
-- Name: orders_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.orders_id_seq', 30, true);


--
-- Name: payments_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.payments_id_seq', 20, true);


--
-- Name: products_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.products_id_seq', 12, true);


--
-- Name: roles_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.roles_id_seq', 3, true);


--
-- Name: staff_users_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.staff_users_id_seq', 3, true);


--
-- Name: stores_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.stores_id_seq', 3, true);


--
-- Name: alembic_version alembic_version_pkc; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);


--
-- Name: addresses pk_addresses; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.addresses
    ADD CONSTRAINT pk_addresses PRIMARY KEY (id);


--
-- Name: categories pk_categories; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.categories
    ADD CONSTRAINT pk_categories PRIMARY KEY (id);


--
-- Name: customers pk_customers; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.customers
    ADD CONSTRAINT pk_customers PRIMARY KEY (id);


--
-- Name: order_lines pk_order_lines; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.order_lines
    ADD CONSTRAINT pk_order_lines PRIMARY KEY (id);


--
-- Name: orders pk_orders; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.orders
    ADD CONSTRAINT pk_orders PRIMARY KEY (id);


--
-- Name: payments pk_payments; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.payments
    ADD CONSTRAINT pk_payments PRIMARY KEY (id);


--
-- Name: products pk_products; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.products
    ADD CONSTRAINT pk_products PRIMARY KEY (id);


--
-- Name: roles pk_roles; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.roles
    ADD CONSTRAINT pk_roles PRIMARY KEY (id);


--
-- Name: staff_users pk_staff_users; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.staff_users
    ADD CONSTRAINT pk_staff_users PRIMARY KEY (id);


--
-- Name: stock_levels pk_stock_levels; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.stock_levels
    ADD CONSTRAINT pk_stock_levels PRIMARY KEY (store_id, product_id);


--
-- Name: stores pk_stores; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.stores
    ADD CONSTRAINT pk_stores PRIMARY KEY (id);


--
-- Name: categories uq_categories_slug; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.categories
    ADD CONSTRAINT uq_categories_slug UNIQUE (slug);


--
-- Name: customers uq_customers_email; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.customers
    ADD CONSTRAINT uq_customers_email UNIQUE (email);


--
-- Name: order_lines uq_order_lines_order_id_product_id; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.order_lines
    ADD CONSTRAINT uq_order_lines_order_id_product_id UNIQUE (order_id, product_id);


--
-- Name: orders uq_orders_number; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.orders
    ADD CONSTRAINT uq_orders_number UNIQUE (number);


--
-- Name: products uq_products_sku; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.products
    ADD CONSTRAINT uq_products_sku UNIQUE (sku);


--
-- Name: roles uq_roles_name; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.roles
    ADD CONSTRAINT uq_roles_name UNIQUE (name);


--
-- Name: staff_users uq_staff_users_email; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.staff_users
    ADD CONSTRAINT uq_staff_users_email UNIQUE (email);


--
-- Name: stores uq_stores_code; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.stores
    ADD CONSTRAINT uq_stores_code UNIQUE (code);


--
-- Name: seeddb_marker seeddb_marker_pkey; Type: CONSTRAINT; Schema: seeddb; Owner: -
--

ALTER TABLE ONLY seeddb.seeddb_marker
    ADD CONSTRAINT seeddb_marker_pkey PRIMARY KEY (one);


--
-- Name: seeddb_step seeddb_step_pkey; Type: CONSTRAINT; Schema: seeddb; Owner: -
--

ALTER TABLE ONLY seeddb.seeddb_step
    ADD CONSTRAINT seeddb_step_pkey PRIMARY KEY (name);


--
-- Name: ix_addresses_customer_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_addresses_customer_id ON public.addresses USING btree (customer_id);


--
-- Name: ix_orders_customer_id_placed_at; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_orders_customer_id_placed_at ON public.orders USING btree (customer_id, placed_at);


--
-- Name: ix_payments_order_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_payments_order_id ON public.payments USING btree (order_id);


--
-- Name: ix_products_category_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_products_category_id ON public.products USING btree (category_id);


--
-- Name: ix_products_name_trgm; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_products_name_trgm ON public.products USING gin (name public.gin_trgm_ops);


--
-- Name: addresses fk_addresses_customer_id_customers; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.addresses
    ADD CONSTRAINT fk_addresses_customer_id_customers FOREIGN KEY (customer_id) REFERENCES public.customers(id) ON DELETE CASCADE;


--
-- Name: order_lines fk_order_lines_order_id_orders; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.order_lines
    ADD CONSTRAINT fk_order_lines_order_id_orders FOREIGN KEY (order_id) REFERENCES public.orders(id) ON DELETE CASCADE;


--
-- Name: order_lines fk_order_lines_product_id_products; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.order_lines
    ADD CONSTRAINT fk_order_lines_product_id_products FOREIGN KEY (product_id) REFERENCES public.products(id);


--
-- Name: orders fk_orders_customer_id_customers; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.orders
    ADD CONSTRAINT fk_orders_customer_id_customers FOREIGN KEY (customer_id) REFERENCES public.customers(id);


--
-- Name: orders fk_orders_store_id_stores; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.orders
    ADD CONSTRAINT fk_orders_store_id_stores FOREIGN KEY (store_id) REFERENCES public.stores(id);


--
-- Name: payments fk_payments_order_id_orders; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.payments
    ADD CONSTRAINT fk_payments_order_id_orders FOREIGN KEY (order_id) REFERENCES public.orders(id);


--
-- Name: products fk_products_category_id_categories; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.products
    ADD CONSTRAINT fk_products_category_id_categories FOREIGN KEY (category_id) REFERENCES public.categories(id);


--
-- Name: staff_users fk_staff_users_role_id_roles; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.staff_users
    ADD CONSTRAINT fk_staff_users_role_id_roles FOREIGN KEY (role_id) REFERENCES public.roles(id);


--
-- Name: stock_levels fk_stock_levels_product_id_products; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.stock_levels
    ADD CONSTRAINT fk_stock_levels_product_id_products FOREIGN KEY (product_id) REFERENCES public.products(id);


--
-- Name: stock_levels fk_stock_levels_store_id_stores; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.stock_levels
    ADD CONSTRAINT fk_stock_levels_store_id_stores FOREIGN KEY (store_id) REFERENCES public.stores(id);


--
-- PostgreSQL database dump complete
--


