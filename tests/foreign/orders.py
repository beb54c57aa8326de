"""An ordinary Flask application with SQLAlchemy and threads: the orders of a mail-order house.

Started as its users would: `opentelemetry-instrument waitress-serve --threads=8 orders:app`.
"""

import os
import random
import tempfile
import threading
import time

import deploys
import sqlalchemy as sa
from flask import Flask, abort, jsonify
from sqlalchemy import orm

FOLDER = os.environ.get("ORDERS_FOLDER") or tempfile.mkdtemp(prefix="orders-")
engine = sa.create_engine(f"sqlite:///{FOLDER}/orders.db", connect_args={"timeout": 30})
Session = orm.sessionmaker(engine)
CUSTOMERS, ORDERS, ARTICLES = 200, 12, 150_000
COUNTER = threading.Lock()
app = Flask(__name__)


class Base(orm.DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    customer: orm.Mapped[int] = orm.mapped_column(index=True)
    items: orm.Mapped[list["Item"]] = orm.relationship()


class Item(Base):
    __tablename__ = "items"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    order: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("orders.id"), index=True)
    cents: orm.Mapped[int]


class Article(Base):
    __tablename__ = "articles"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    number: orm.Mapped[str] = orm.mapped_column(index=True)
    title: orm.Mapped[str]


class Invoice(Base):
    __tablename__ = "invoices"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    order: orm.Mapped[int]
    number: orm.Mapped[int]


def fill() -> None:
    """The house as it stands at the start of the day."""
    chance = random.Random(4)
    Base.metadata.create_all(engine)
    of_customer = [customer for customer in range(CUSTOMERS) for _ in range(ORDERS)]
    with engine.begin() as connection:
        connection.execute(
            sa.insert(Order), [{"id": n, "customer": who} for n, who in enumerate(of_customer, 1)]
        )
        connection.execute(
            sa.insert(Item),
            [{"order": 1 + n // 3, "cents": 5 * chance.randrange(20, 900)}
             for n in range(3 * len(of_customer))],
        )  # fmt: skip
        connection.execute(
            sa.insert(Article),
            [{"number": f"A-{n:06}", "title": f"Article {n} of the catalogue"}
             for n in range(ARTICLES)],
        )  # fmt: skip


fill()


@app.get("/customers/<int:customer>/orders")
def orders_of(customer: int):
    """The mistake `lazy_items`: the items of each order are loaded when they are looked at."""
    query = sa.select(Order).where(Order.customer == customer)
    if deploys.brought() != "lazy_items":
        query = query.options(orm.selectinload(Order.items))
    with Session() as session:
        return jsonify([summary(order) for order in session.scalars(query)])


def summary(order: Order) -> dict:
    return {"order": order.id, "cents": sum(item.cents for item in order.items)}


@app.get("/articles/<number>")
def article(number: str):
    with Session() as session:
        found = by_number(session, number)
        return jsonify(found.title) if found else abort(404)


def by_number(session: orm.Session, number: str) -> Article | None:
    """The mistake `any_case`: what is compared is no longer what the index holds."""
    if deploys.brought() == "any_case":
        wanted = sa.func.lower(Article.number) == number.lower()
    else:
        wanted = Article.number == number
    return session.scalars(sa.select(Article).where(wanted)).first()


@app.post("/orders/<int:order>/invoice")
def invoice(order: int):
    with Session() as session:
        paid = Invoice(order=order, number=next_number(order))
        session.add(paid)
        session.commit()
        return jsonify(paid.number)


def next_number(order: int) -> int:
    """The mistake `one_counter`: numbers come from a file on a share, one thread at a time."""
    if deploys.brought() == "one_counter":
        with COUNTER:
            time.sleep(0.12)  # the share
    return 70_000 + order
