"""What EC2 promises, as pure functions: the state goes in, a decision or EC2's own error comes out.

The books (moto, LocalStack) accept nearly everything at once; what is decided here is what makes the local region no
kinder than AWS. Sources are the EC2 API reference and user guide, by action; a choice that is ours is marked so. One
module per kind of resource.
"""
